"""Matching of detected crops to the ground truth of a rendered street."""

import os
from pathlib import Path

import numpy as np

from cion_jax.samples import SampleTable
from cion_jax.samples.motchallenge import read_mot
from cion_jax.street.tracker import NOBODY

_SAME = 0.5  # IoU from which a box counts as showing a person


def with_people(table: SampleTable, truth: str | os.PathLike) -> SampleTable:
    """Adds `person`, the true person in each crop or -1, to a table from `cion_jax.samples.ingest`.

    `truth` is the ground-truth folder that `film_street` writes. A crop shows the person whose box has the highest
    IoU with its own, if that is at least 0.5.

    Raises:
        ValueError: The table has no boxes, or one of its videos has no ground truth.
    """
    boxes = np.stack([table[side] for side in ("left", "top", "width", "height")], axis=1).astype(float)
    boxes[:, 2:] += boxes[:, :2]
    people = np.full(len(table), NOBODY)
    videos = table["video"]
    for video in dict.fromkeys(videos.tolist()):
        rows = np.flatnonzero(videos == video)
        people[rows] = _people(Path(truth) / f"{video}.txt", table["frame"][rows], boxes[rows])
    return table.with_columns(person=people)


def _people(truth: Path, frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    known = read_mot(truth, "gt")
    assert known.ids is not None
    people = np.full(len(frames), NOBODY)
    for frame in np.unique(frames):
        rows, there = np.flatnonzero(frames == frame), np.flatnonzero(known.frames == frame)
        if not len(there):
            continue
        overlaps = overlap(boxes[rows], known.boxes[there])
        best = overlaps.argmax(1)
        shown = overlaps[np.arange(len(rows)), best] >= _SAME
        people[rows[shown]] = known.ids[there[best[shown]]]
    return people


def overlap(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Returns the IoU `[n, m]` of boxes `[n, 4]` and `[m, 4]`, each (left, top, right, bottom)."""
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (ours, theirs)]
    return both / (areas[0][:, None] + areas[1][None] - both)
