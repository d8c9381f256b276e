"""Where the images of a table are: a folder of files, a packed store or an LMDB; and whether they are there."""

import os
from pathlib import Path
from typing import Protocol

import numpy as np

from cion_jax.samples.images import load_image, read_file
from cion_jax.samples.stores.lmdb_images import LmdbImages, is_lmdb
from cion_jax.samples.stores.packed import PackedImages, Paths, is_packed
from cion_jax.samples.table import EXAMPLES, SampleTable


class Images(Protocol):
    """Images by the `file_path` of a sample table."""

    def load(self, path: str) -> np.ndarray:
        """`[height, width, 3]` uint8 RGB; `UndecodableImage` if there is none or it is broken."""
        ...

    def read(self, path: str) -> bytes:
        """The image as it is stored, not decoded; `UndecodableImage` if it cannot be read."""
        ...

    def missing(self, paths: Paths) -> np.ndarray:
        """Mask of the names that do not exist."""
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
        return np.array([not (self._root / path).is_file() for path in paths], bool)


def open_images(root: str | os.PathLike) -> Images:
    """The images of a folder, of a store that `cion_jax.pack` made, or of an LMDB (`path` is then the key).

    Raises:
      ValueError: there is no such folder, a file in its place, or a damaged store.
    """
    if not os.path.isdir(root):
        found = "a file, expected a folder of images" if os.path.exists(root) else "no such folder"
        raise ValueError(f"image root {root}: {found}")
    if is_packed(root):
        return PackedImages(root)
    return LmdbImages(root) if is_lmdb(root) else ImageFolder(root)


def check_images(table: SampleTable, root: str | os.PathLike, *, sample: int = 1000, seed: int = 0) -> None:
    """Looks for `sample` random rows under the image root `root`, as `open_images` takes it.

    Where one of them is missing, all rows are looked up, and the number of missing files is reported with the
    first few as a `ValueError`.
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
