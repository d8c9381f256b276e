"""Retrieval benchmarks: query and gallery images with identities and cameras."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cion_jax.samples.layouts import NamedImages, read_names

QUERY_FOLDER, GALLERY_FOLDER = "query", "bounding_box_test"


class LabelledImages(NamedTuple):
    """Image paths with `[images]` int64 identities and cameras."""

    paths: list[str]
    ids: np.ndarray
    cameras: np.ndarray

    def select(self, rows: np.ndarray) -> "LabelledImages":
        """The given rows, in the order given."""
        return LabelledImages([self.paths[row] for row in rows], self.ids[rows], self.cameras[rows])


class Benchmark(NamedTuple):
    """A retrieval benchmark: every query is ranked against the whole gallery.

    `source` describes the copy of the data set that was read: scores on different copies are not comparable.
    """

    query: LabelledImages
    gallery: LabelledImages
    source: str


def read_named_folder(folder: Path) -> LabelledImages:
    """Images of a folder, sorted by their names `<identity>_c<camera>...`, without junk (identity -1).

    Raises:
        ValueError: no such folder, a name that does not follow the pattern, or no images but junk.
    """
    return in_folder(folder, read_names(folder)[0])


def in_folder(folder: Path, images: NamedImages) -> LabelledImages:
    """The images with `folder` prepended to their names."""
    return LabelledImages([str(folder / name) for name in images.names], images.ids, images.cameras)
