"""The common form of all benchmarks, and Market-1501's naming of files."""

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

QUERY_FOLDER, GALLERY_FOLDER = "query", "bounding_box_test"
_NAME = re.compile(r"(-?\d+)_c(\d+)")
_SUFFIXES = (".jpg", ".jpeg", ".png")
_JUNK = -1


class LabelledImages(NamedTuple):
    """Image paths with `[images]` int64 identities and cameras."""

    paths: list[str]
    ids: np.ndarray
    cameras: np.ndarray

    def select(self, rows: np.ndarray) -> "LabelledImages":
        """The given rows, in the order given."""
        return LabelledImages([self.paths[row] for row in rows], self.ids[rows], self.cameras[rows])


class Benchmark(NamedTuple):
    """A retrieval benchmark: every query is looked for in the gallery.

    `source` says in words which copy of a data set was read: scores on different ones do not compare.
    """

    query: LabelledImages
    gallery: LabelledImages
    source: str


def read_named_folder(folder: Path) -> LabelledImages:
    """Reads the images of a folder, in order of their names `<identity>_c<camera>...`; identity -1 is left out.

    Raises ValueError for a missing folder, names that do not follow the pattern and a folder without images.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    found = [entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(_SUFFIXES)]
    names = sorted(name for name in found if not name.startswith("."))  # such as the "._x.jpg" of macOS
    parsed = [_NAME.match(name) for name in names]
    bad = [name for name, match in zip(names, parsed) if match is None]
    if bad:
        raise ValueError(
            f"{folder}: {len(bad)} of {len(names)} file names do not begin with <identity>_c<camera>; "
            f"the first is {bad[0]!r}"
        )
    labels = np.array([match.groups() for match in parsed if match], dtype=np.int64).reshape(-1, 2)
    images = LabelledImages([str(folder / name) for name in names], labels[:, 0], labels[:, 1])
    images = images.select(np.flatnonzero(images.ids != _JUNK))
    if not images.paths:
        raise ValueError(f"{folder}: no images of a person ({', '.join(_SUFFIXES)}; identity -1 is junk)")
    return images
