"""MOTChallenge text files of boxes: ground truth, detections and tracker output.

A line is `frame, id, left, top, width, height, ...`. Frames count from 1. Boxes are in pixels from 0 at the upper left
corner, as trackers write them, and may extend beyond the image. The remaining values, by kind:

    gt        flag (0: ignore), then class and visibility, or three world coordinates (2015)
    det       confidence, world coordinates; the id should be -1 and is ignored
    tracks    confidence and world coordinates of a tracker's results; all lines count

Files of other programs have a class as eighth value: results of boxmot and Ultralytics, and VisDrone's ground truth.

Published: https://motchallenge.net/instructions, and the papers of MOT15 to MOT20.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cion_jax.samples.box_lines import MAX_VALUES, MIN_VALUES, BoxLines, read_box_lines

KINDS = ("gt", "det", "tracks")
_FLAG, _CLASS = 0, 1  # indices in the values after the box
_PEDESTRIAN, _PUBLISHED = 1, 3  # class of people in MOT16 to MOT20, whose ground truth has three values after the box
_MAX_FRAME = 2**62


class MotBoxes(NamedTuple):
    """Person boxes, in file order.

    frames: `[n]` int64, from 1.
    ids: `[n]` int64, the person or track; None for boxes without tracks.
    boxes: `[n, 4]` float64, in pixels: left, top, right, bottom.
    left_out: number of excluded lines, by reason.
    """

    frames: np.ndarray
    ids: np.ndarray | None
    boxes: np.ndarray
    left_out: dict[str, int]


def read_mot(
    path: str | os.PathLike, kind: str, *, classes: Sequence[int] | None = None, first_frame: int = 1
) -> MotBoxes:
    """Reads and validates a file of boxes; `kind` is one of `KINDS`.

    Lines flagged as ignored, boxes of other classes than people and boxes without area are left out.

    Args:
        classes: The classes that are people. By default 1 in ground truth of MOT16 to MOT20; any other file that
            distinguishes classes is refused without them.
        first_frame: The number of a video's first frame in the file, 0 or 1.

    Raises:
        ValueError: no such file, a malformed line, a frame below `first_frame`, an id twice in a frame, classes that
            are not known, or no boxes left.
    """
    path = Path(path)
    lines = read_box_lines(path)
    lines.check(path, lines.frames < first_frame, f"a frame below {first_frame} (frames count from {first_frame})")
    lines.check(path, lines.frames > _MAX_FRAME, f"a frame above {_MAX_FRAME}")
    left_out = {}
    keep = np.ones(len(lines.frames), bool)
    for reason, bad in _unwanted(path, lines, kind, classes).items():
        if count := int((bad & keep).sum()):
            left_out[reason] = count
        keep &= ~bad
    if not keep.any():
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise ValueError(f"{path}: none of {len(keep)} boxes is left ({reasons})")
    ids = None if kind == "det" or (lines.ids == -1).all() else lines.ids[keep]
    frames = lines.frames[keep] + (1 - first_frame)
    if ids is not None:
        _check_ids(path, frames, ids, np.flatnonzero(keep) + lines.first)
    corner, size = np.hsplit(lines.boxes[keep], 2)
    return MotBoxes(frames, ids, np.hstack([corner, corner + size]), left_out)


def _unwanted(path: Path, lines: BoxLines, kind: str, classes: Sequence[int] | None) -> dict[str, np.ndarray]:
    bad = {}
    if kind == "gt" and lines.rest.shape[1] > _FLAG:
        bad["flagged as not to be counted"] = lines.rest[:, _FLAG] == 0
    column = _classes(path, lines)
    if column is None and classes is not None:
        raise ValueError(f"{path}: --classes={','.join(map(str, classes))}, but the file has no classes; leave it out")
    if column is not None:
        people = classes or _published_classes(path, lines, kind, column)
        bad["of other classes than people"] = ~np.isin(column, people)
    bad["without area"] = (lines.boxes[:, 2:] <= 0).any(axis=1)
    return bad


def _classes(path: Path, lines: BoxLines) -> np.ndarray | None:
    """The class of each line, `[n]`, its eighth value; None if that is -1, or a world coordinate, in all lines."""
    if lines.rest.shape[1] <= _CLASS or (lines.rest[:, _CLASS] == -1).all():
        return None
    column = lines.rest[:, _CLASS]
    fractions = column != np.rint(column)
    if lines.rest.shape[1] == MAX_VALUES - MIN_VALUES and fractions.any():
        return None
    lines.check(path, fractions, "a class (the eighth value) that is no whole number")
    return column


def _published_classes(path: Path, lines: BoxLines, kind: str, column: np.ndarray) -> Sequence[int]:
    if kind == "gt" and lines.rest.shape[1] == _PUBLISHED:
        return [_PEDESTRIAN]
    found = np.unique(column)
    shown = ", ".join(f"{value:.15g}" for value in found[:10]) + (", ..." if len(found) > 10 else "")
    raise ValueError(
        f"{path}: the eighth value is not -1, so it is a class ({shown}), and no published one; say which are people, "
        "such as --classes=0 for COCO as Ultralytics numbers it; if it is a world coordinate, write -1"
    )


def _check_ids(path: Path, frames: np.ndarray, ids: np.ndarray, numbers: np.ndarray) -> None:
    """Rejects negative and repeated ids; `numbers` are line numbers, from 1."""
    if (ids < 0).any():
        raise ValueError(
            f"{path}: line {numbers[ids < 0][0]} has a negative id, others have none such; expected tracks"
        )
    order = np.lexsort((ids, frames))
    repeated = (np.diff(frames[order]) == 0) & (np.diff(ids[order]) == 0)
    if repeated.any():
        first, second = sorted(numbers[order[np.flatnonzero(repeated)[0] + np.arange(2)]])
        row = order[np.flatnonzero(repeated)[0]]
        raise ValueError(f"{path}: id {ids[row]} is twice in frame {frames[row]}, in lines {first} and {second}")
