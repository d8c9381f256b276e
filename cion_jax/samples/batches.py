"""Batches of decoded images, made by a pool of threads ahead of whoever reads them."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np

from cion_jax.samples.images import UndecodableImage, load_image, resize


class ImageBatch(NamedTuple):
    """Decoded image files.

    images: `[batch_size, height, width, 3]` uint8, black where a file could not be decoded or there was none.
    slots: the places in the batch that hold an image.
    rows: the image file in each of these places, counted over all batches.
    undecodable: why a file could not be decoded, by its row.
    """

    images: np.ndarray
    slots: np.ndarray
    rows: np.ndarray
    undecodable: dict[int, str]


def load_batches(paths: Sequence[str | os.PathLike], size: tuple[int, int], batch_size: int) -> Iterator[ImageBatch]:
    """Yields all files in order, resized to `size` (height, width), in batches of one shape.

    Decoders release the interpreter lock, so there is a thread per core; at most one batch more than that is
    decoded or waiting at any time.
    """
    workers = os.cpu_count() or 1
    starts = iter(range(0, len(paths), batch_size))
    pool = ThreadPoolExecutor(workers)

    def submit(count: int) -> None:
        for start in islice(starts, count):
            ahead.append(pool.submit(_load_batch, paths, size, batch_size, start))

    ahead = deque()
    try:
        submit(workers + 1)
        while ahead:
            batch = ahead.popleft().result()
            submit(1)
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


def _load_batch(paths: Sequence[str | os.PathLike], size: tuple[int, int], batch_size: int, start: int) -> ImageBatch:
    images = np.zeros((batch_size, *size, 3), np.uint8)
    slots, undecodable = [], {}
    for slot, path in enumerate(paths[start : start + batch_size]):
        try:
            images[slot] = resize(load_image(path), size)
            slots.append(slot)
        except UndecodableImage as error:
            undecodable[start + slot] = str(error)
    filled = np.array(slots, np.int64)
    return ImageBatch(images, filled, filled + start, undecodable)
