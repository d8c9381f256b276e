"""MOTChallenge text files of boxes: ground truth, detections and tracker output.

A line is `frame, id, left, top, width, height, ...`, without a header. Frames count from 1. Boxes are in pixels from 0
at the upper left corner, as trackers write them, and may extend beyond the image. The remaining values, by kind:

    gt        flag (0: ignore), then class and visibility, or three world coordinates (2015)
    det       confidence, world coordinates; the id should be -1 and is ignored
    tracks    confidence and world coordinates of a tracker's results; all lines count

Published: https://motchallenge.net/instructions, and the papers of MOT15 to MOT20.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

KINDS = ("gt", "det", "tracks")
_FRAME, _ID, _LEFT, _FLAG, _CLASS = 0, 1, 2, 6, 7
_COLUMNS = range(6, 11)  # permitted numbers of values in a line
_COLUMNS_WITH_CLASS = 9
_PEDESTRIAN = 1


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


def read_mot(path: str | os.PathLike, kind: str) -> MotBoxes:
    """Reads and validates a file of boxes; `kind` is one of `KINDS`.

    Lines flagged as ignored, boxes of other classes than pedestrian and boxes without area are left out.

    Raises:
        ValueError: no such file, a malformed line, a frame below 1, an id twice in a frame, or no boxes left.
    """
    lines = _lines(Path(path))
    left_out = {}
    keep = np.ones(len(lines), bool)
    for reason, bad in _unwanted(lines, kind).items():
        if count := int((bad & keep).sum()):
            left_out[reason] = count
        keep &= ~bad
    if not keep.any():
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise ValueError(f"{path}: none of {len(lines)} boxes is left ({reasons})")
    ids = None if kind == "det" or (lines[:, _ID] == -1).all() else lines[keep, _ID].astype(np.int64)
    frames = lines[keep, _FRAME].astype(np.int64)
    if ids is not None:
        _check_ids(path, frames, ids, np.flatnonzero(keep) + 1)
    corner, size = lines[keep, _LEFT : _LEFT + 2], lines[keep, _LEFT + 2 : _LEFT + 4]
    return MotBoxes(frames, ids, np.hstack([corner, corner + size]), left_out)


def _lines(path: Path) -> np.ndarray:
    """Values of the file, `[lines, columns]` float64."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file of boxes")
    with path.open("rb") as file:
        count = file.readline().count(b",") + 1
    if count not in _COLUMNS:
        raise ValueError(
            f"{path}: {count} values in line 1, expected {_COLUMNS[0]} to {_COLUMNS[-1]} with commas between them: "
            "frame, id, left, top, width, height, ..."
        )
    names = [str(column) for column in range(count)]
    types = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.float64()), null_values=[])
    read = pyarrow.csv.ReadOptions(column_names=names, use_threads=False)  # threaded errors do not name the row
    try:
        table = pyarrow.csv.read_csv(path, read_options=read, convert_options=types)
    except pa.ArrowException as error:
        raise ValueError(f"{path}: cannot be read as boxes, or cut off ({error})") from error
    lines = np.stack([column.to_numpy() for column in table.columns], axis=1)
    _check(path, ~np.isfinite(lines[:, :6]).all(axis=1), "a value that is no number")
    frame_and_id = lines[:, : _ID + 1]
    _check(path, np.not_equal(frame_and_id, np.rint(frame_and_id)).any(axis=1), "a frame or id that is no whole number")
    _check(path, lines[:, _FRAME] < 1, "a frame below 1 (frames count from 1)")
    return lines


def _unwanted(lines: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    bad = {}
    if kind == "gt" and lines.shape[1] > _FLAG:
        bad["flagged as not to be counted"] = lines[:, _FLAG] == 0
        if lines.shape[1] == _COLUMNS_WITH_CLASS:
            bad["of other classes than pedestrian"] = lines[:, _CLASS] != _PEDESTRIAN
    bad["without area"] = (lines[:, _LEFT + 2 : _LEFT + 4] <= 0).any(axis=1)
    return bad


def _check_ids(path: str | os.PathLike, frames: np.ndarray, ids: np.ndarray, numbers: np.ndarray) -> None:
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


def _check(path: Path, bad: Any, what: str) -> None:
    if bad.any():
        raise ValueError(f"{path}: {what} in {bad.sum()} of {len(bad)} lines, first in line {bad.argmax() + 1}")
