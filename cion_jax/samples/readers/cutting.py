"""Cropping of boxes from the frames of one video into a folder that is written atomically."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cion_jax.runtime.files import atomic_path, read_json, write_json
from cion_jax.samples.ingest.crops import check_scale, cut, encode
from cion_jax.samples.ingest.decoding import BrokenVideo, Frame

# Digest of the boxes and list of unreadable frames; hidden, so that listing the folder skips it.
_DONE = ".boxes.json"


class Cut(NamedTuple):
    """Outcome for each box, as `[n]` bool masks; a box in neither lies outside its frame.

    written: the crop was written.
    unread: the frame is missing or cannot be decoded.
    """

    written: np.ndarray
    unread: np.ndarray


def cut_boxes(
    frames: Iterable[Frame],
    numbers: np.ndarray,
    boxes: np.ndarray,
    names: list[str],
    folder: Path,
    *,
    skip_unread: bool = False,
) -> Cut:
    """Writes box `boxes[i]` (left, top, right, bottom) of frame `numbers[i]`, clipped, to `folder/names[i]` as JPEG.

    A folder from an earlier call with the same boxes and names is kept; one with other boxes is replaced.

    Raises:
        BrokenVideo: raised by `frames`.
        OtherScale: most boxes are outside their frames.
        ValueError: a frame with boxes cannot be read, unless `skip_unread`, or `folder` is not a crop folder.
    """
    digest = hashlib.sha256("\n".join(names).encode() + numbers.tobytes() + boxes.tobytes()).hexdigest()
    if folder.exists() and not (folder / _DONE).exists():
        raise ValueError(f"{folder} is there already and was not made by this reader; give another folder of crops")
    previous = read_json(folder / _DONE) if folder.exists() else None
    if isinstance(previous, dict) and previous.get("boxes") == digest:
        written = np.array([(folder / name).exists() for name in names], bool)
        return Cut(written, np.isin(numbers, previous["unread_frames"]))
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for parent in {os.path.dirname(name) for name in names}:
            (temporary / parent).mkdir(parents=True, exist_ok=True)
        done = _cut_frames(frames, numbers, boxes, names, temporary)
        unread = np.unique(numbers[done.unread]).tolist()
        if unread and not skip_unread:
            raise ValueError(f"{len(unread)} frames with boxes cannot be read, the first is frame {unread[0]}")
        write_json(temporary / _DONE, {"boxes": digest, "unread_frames": unread})
    return done


def _cut_frames(frames: Iterable[Frame], numbers: np.ndarray, boxes: np.ndarray, names: list[str], folder: Path) -> Cut:
    rows_of = _by_frame(numbers)
    written, unread = np.zeros(len(names), bool), np.ones(len(names), bool)

    def cut_frame(image: Callable[[], np.ndarray], rows: np.ndarray) -> None:
        try:
            pixels = image()
        except BrokenVideo:
            return
        unread[rows] = False
        for row in rows:
            if (crop := cut(pixels, boxes[row], min_height=1)) is not None:
                (folder / names[row]).write_bytes(encode(crop))
                written[row] = True

    with ThreadPoolExecutor() as pool:
        running = deque()
        for number, image in frames:
            if (rows := rows_of.get(number)) is None:
                continue
            running.append(pool.submit(cut_frame, image, rows))
            if len(running) > 2 * (os.cpu_count() or 1):  # decoded frames are large
                running.popleft().result()
        for job in running:
            job.result()
    check_scale(int((~written & ~unread).sum()), int((~unread).sum()))
    return Cut(written, unread)


def _by_frame(numbers: np.ndarray) -> dict[int, np.ndarray]:
    order = np.argsort(numbers, kind="stable")
    frames, starts = np.unique(numbers[order], return_index=True)
    return dict(zip(frames.tolist(), np.split(order, starts[1:])))
