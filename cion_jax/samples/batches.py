"""Batches of decoded images, prefetched by a thread pool."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from cion_jax.samples.images import UndecodableImage, load_image, resize


class ImageBatch(NamedTuple):
    """Decoded images of one batch.

    images: `[batch_size, height, width, 3]` uint8 RGB, black in slots without a decodable image.
    slots: `[images]` int64, the slots of the batch that hold an image.
    rows: `[images]` int64, the row of `paths` in each of these slots.
    undecodable: error messages of files that could not be decoded, by row.
    """

    images: np.ndarray
    slots: np.ndarray
    rows: np.ndarray
    undecodable: dict[int, str]


def load_batches(
    paths: Any,
    size: tuple[int, int],
    batch_size: int,
    *,
    load: Callable[[Any], np.ndarray] = load_image,
    rows: range | None = None,
) -> Iterator[ImageBatch]:
    """Yields all images in order, resized to `size` (height, width), in batches of equal shape.

    Decoders release the interpreter lock, hence one thread per core; at most one batch more than cores is in flight.

    Args:
        paths: sequence or array of arguments for `load`.
        load: returns the image of a path or raises `UndecodableImage`; reads a file by default.
        rows: part of `paths` to load, by default all of it.
    """
    rows = range(len(paths)) if rows is None else rows
    workers = os.cpu_count() or 1
    parts = iter([rows[first : first + batch_size] for first in range(0, len(rows), batch_size)])
    pool = ThreadPoolExecutor(workers)

    def submit(count: int) -> None:
        for part in islice(parts, count):
            ahead.append(pool.submit(_load_batch, paths, part, size, batch_size, load))

    ahead = deque()
    try:
        submit(workers + 1)
        while ahead:
            batch = ahead.popleft().result()
            submit(1)
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


def _load_batch(
    paths: Any, rows: range, size: tuple[int, int], batch_size: int, load: Callable[[Any], np.ndarray]
) -> ImageBatch:
    images = np.zeros((batch_size, *size, 3), np.uint8)
    slots, undecodable = [], {}
    for slot, row in enumerate(rows):
        try:
            images[slot] = resize(load(paths[row]), size)
            slots.append(slot)
        except UndecodableImage as error:
            undecodable[row] = str(error)
    filled = np.array(slots, np.int64)
    return ImageBatch(images, filled, filled + rows.start, undecodable)
