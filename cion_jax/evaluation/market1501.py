"""Reading a benchmark in the layout of Market-1501.

File names are `<identity>_c<camera>...jpg`. Identity -1 marks junk boxes, which are dropped; 0 marks
distractors, which stay in the gallery.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

QUERY_FOLDER, GALLERY_FOLDER = "query", "bounding_box_test"
# The folder itself, and the names that ReID code bases give it below a data root.
_ROOTS = (".", "market1501", "Market-1501-v15.09.15")
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
    """A retrieval benchmark: every query is looked for in the gallery."""

    query: LabelledImages
    gallery: LabelledImages


def read_market1501(root: str | os.PathLike) -> Benchmark:
    """Reads `query/` and `bounding_box_test/` in `root`, `root/market1501` or `root/Market-1501-v15.09.15`.

    Images are in order of their names. Raises ValueError for missing folders, a folder without images and
    names that do not follow the pattern.
    """
    candidates = [Path(root) / name for name in _ROOTS]
    for folder in candidates:
        if (folder / QUERY_FOLDER).is_dir() and (folder / GALLERY_FOLDER).is_dir():
            return Benchmark(_read_folder(folder / QUERY_FOLDER), _read_folder(folder / GALLERY_FOLDER))
    raise ValueError(
        f"no {QUERY_FOLDER}/ beside a {GALLERY_FOLDER}/ in any of {', '.join(map(str, candidates))}; "
        "give the folder that holds them"
    )


def _read_folder(folder: Path) -> LabelledImages:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(_SUFFIXES))
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
