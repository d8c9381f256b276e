"""Cutting boxes out of the frames of one video, into a folder that is whole or not there."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cion_jax.runtime.files import atomic_path, read_json, write_json
from cion_jax.samples.ingest.crops import cut, encode
from cion_jax.samples.ingest.decoding import Frame

_DONE = ".boxes.json"  # which boxes a folder's crops are of; hidden, as folders are listed


class MissingFrames(ValueError):
    """There are boxes of frames that a video does not have."""


def cut_boxes(
    frames: Iterable[Frame], numbers: np.ndarray, boxes: np.ndarray, names: list[str], folder: Path
) -> np.ndarray:
    """Writes box `boxes[i]` (left, top, right, bottom) of frame `numbers[i]`, clipped, to `folder/names[i]` as JPEG.

    A folder that an earlier call made of the same boxes and names stays as it is; one of other boxes is replaced.

    Returns:
      `[n]` bool: which boxes have a crop; those that lie outside their frame have none.

    Raises:
      MissingFrames: a frame that has boxes is not among `frames`.
      ValueError: a frame cannot be decoded, or `folder` holds something else than crops.
    """
    digest = hashlib.sha256("\n".join(names).encode() + numbers.tobytes() + boxes.tobytes()).hexdigest()
    if folder.exists() and not (folder / _DONE).exists():
        raise ValueError(f"{folder} is there already and was not made by this reader; give another folder of crops")
    if folder.exists() and read_json(folder / _DONE) == digest:
        return np.array([(folder / name).exists() for name in names], bool)
    rows_of = _by_frame(numbers)
    written = np.zeros(len(names), bool)
    with atomic_path(folder) as temporary, ThreadPoolExecutor() as pool:
        temporary.mkdir()
        for parent in {os.path.dirname(name) for name in names}:
            (temporary / parent).mkdir(parents=True, exist_ok=True)

        def cut_frame(image: Callable[[], np.ndarray], rows: np.ndarray) -> None:
            pixels = image()
            for row in rows:
                if (crop := cut(pixels, boxes[row], min_height=1)) is not None:
                    (temporary / names[row]).write_bytes(encode(crop))
                    written[row] = True

        running = deque()
        for number, image in frames:
            if (rows := rows_of.pop(number, None)) is None:
                continue
            running.append(pool.submit(cut_frame, image, rows))
            if len(running) > 2 * (os.cpu_count() or 1):  # decoded frames are large
                running.popleft().result()
        for job in running:
            job.result()
        if rows_of:
            raise MissingFrames(f"{len(rows_of)} frames with boxes are not there, the first is frame {min(rows_of)}")
        write_json(temporary / _DONE, digest)
    return written


def _by_frame(numbers: np.ndarray) -> dict[int, np.ndarray]:
    order = np.argsort(numbers, kind="stable")
    frames, starts = np.unique(numbers[order], return_index=True)
    return dict(zip(frames.tolist(), np.split(order, starts[1:])))
