"""Image access for a sample table: folder of files, packed store or LMDB; and a check for missing images."""

import os
from pathlib import Path
from typing import Protocol

import numpy as np

from cion_jax.runtime.file_kinds import other_kind
from cion_jax.samples.images import load_image, read_file
from cion_jax.samples.stores.lmdb_images import LmdbImages, is_lmdb
from cion_jax.samples.stores.packed import PackedImages, Paths, is_packed
from cion_jax.samples.table import EXAMPLES, SampleTable


class Images(Protocol):
    """Images by the `file_path` of a sample table."""

    def load(self, path: str) -> np.ndarray:
        """`[height, width, 3]` uint8 RGB; raises `UndecodableImage` if it is missing or corrupt."""
        ...

    def read(self, path: str) -> bytes:
        """The encoded bytes of the image; raises `UndecodableImage` if it cannot be read."""
        ...

    def missing(self, paths: Paths) -> np.ndarray:
        """Mask of the paths that do not exist, `[paths]` bool."""
        ...


class ImageFolder:
    """Image files below `root`."""

    def __init__(self, root: str | os.PathLike):
        self._root = Path(root)

    def load(self, path: str) -> np.ndarray:
        return load_image(self._root / path)

    def read(self, path: str) -> bytes:
        return read_file(self._root / path)

    def missing(self, paths: Paths) -> np.ndarray:
        return np.array([not os.path.isfile(self._root / path) for path in paths], bool)  # False for any bad name


def open_images(root: str | os.PathLike) -> Images:
    """Opens a folder of images, a packed store (`cion_jax.pack`) or an LMDB, in which paths are the keys.

    Raises:
        ValueError: no such folder, a file instead of a folder, or a damaged store.
    """
    if not os.path.isdir(root):
        problem = "a file, expected a folder of images" if os.path.exists(root) else "no such folder"
        kind = other_kind(root)
        raise ValueError(f"image root {root}: {problem}{f'; {kind}' if kind else ''}")
    if is_packed(root):
        return PackedImages(root)
    return LmdbImages(root) if is_lmdb(root) else ImageFolder(root)


def check_images(table: SampleTable, root: str | os.PathLike, *, sample: int = 1000, seed: int = 0) -> None:
    """Checks that the images of `sample` random rows exist in `root` (see `open_images`).

    If one is missing, all rows are checked.

    Raises:
        ValueError: images are missing; gives their number and the first few.
    """
    images = open_images(root)
    rows = np.random.default_rng(seed).permutation(len(table))[:sample]
    if not images.missing(table.select(rows)["file_path"]).any():
        return
    missing = np.flatnonzero(images.missing(table["file_path"]))
    paths = table["file_path"][missing[:EXAMPLES]]
    examples = ", ".join(f"row {row}: {path!r}" for row, path in zip(missing.tolist(), paths))
    raise ValueError(
        f"{len(missing)} of {len(table)} images are not under the image root {root}: {examples}"
        f"{', ...' if len(missing) > EXAMPLES else ''}; check the root and the table's file_path column"
    )
