"""Batches of decoded images: each image is decoded once, on the host, and sent to the devices as uint8."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import grain
import jax
import numpy as np
from PIL import Image

from cion_jax.distillation.sampler import Sampler
from cion_jax.samples import FINDS_DAMAGE, UndecodableImage, decode_image, open_images

Paths = Sequence[str] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Batch:
    """This process's part of a global batch.

    `images` is uint8 `[b, canvas height, canvas width, 3]`, each image in the upper left corner of its canvas; `sizes`
    is int32 `[b, 2]`, their heights and widths; `rows` is int64 `[b]`, their rows in the table; `replaced` counts
    images that could not be decoded and were replaced.
    """

    images: np.ndarray
    sizes: np.ndarray
    rows: np.ndarray
    replaced: int


def load_batches(
    sampler: Sampler,
    paths: Paths,
    root: Path,
    *,
    canvas: tuple[int, int],
    first_step: int = 0,
    end_step: int | None = None,
    threads: int = 4,
    skip_damaged: bool = False,
) -> Iterator[Batch]:
    """Batches from `first_step` to `end_step` (the end of training), decoded ahead by `threads` threads.

    With several processes, each loads a contiguous part of the groups of every global batch. The contents of a global
    batch do not depend on the number of processes or threads, even if some images cannot be decoded. With
    `skip_damaged`, JPEGs that are damaged inside are replaced as well.

    Raises:
        ValueError: `skip_damaged` without simplejpeg, which finds the damage.
    """
    if skip_damaged and not FINDS_DAMAGE:
        raise ValueError("skip_damaged needs the package simplejpeg, which finds damaged JPEGs: pip install simplejpeg")
    load = _LoadGroups(paths, root, canvas, skip_damaged)
    dataset = grain.MapDataset.source(_Steps(sampler)).slice(slice(first_step, end_step)).map(load)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


class _Steps(grain.sources.RandomAccessDataSource):
    """Rows `[groups, K]` of the global batch of every step, as a grain source."""

    def __init__(self, sampler: Sampler):
        self._sampler = sampler

    def __len__(self) -> int:
        return len(self._sampler)

    def __getitem__(self, step: int) -> np.ndarray:
        return self._sampler[step]


class _LoadGroups(grain.transforms.Map):
    """Decodes this process's part of a global batch."""

    def __init__(self, paths: Paths, root: Path, canvas: tuple[int, int], skip_damaged: bool):
        self._paths, self._images, self._canvas, self._strict = paths, open_images(root), canvas, skip_damaged

    def map(self, groups: np.ndarray) -> Batch:
        own = np.array_split(np.arange(len(groups)), jax.process_count())[jax.process_index()]
        chosen, replaced = [], 0
        for number in own:
            good = self._decode_group(groups[number])
            replaced += groups.shape[1] - len(good)
            good = good or self._substitute(groups, number)
            chosen += [good[place % len(good)] for place in range(groups.shape[1])]
        rows, images = zip(*chosen)
        batch = np.zeros((len(images), *self._canvas, 3), np.uint8)
        for slot, image in zip(batch, images):
            slot[: image.shape[0], : image.shape[1]] = image
        sizes = np.asarray([image.shape[:2] for image in images], np.int32)
        return Batch(batch, sizes, np.asarray(rows, np.int64), replaced)

    def _decode_group(self, rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Rows and images of a group that can be decoded; they also replace those that can't."""
        decoded = ((row, self._decode(row)) for row in rows)
        return [(row, image) for row, image in decoded if image is not None]

    def _substitute(self, groups: np.ndarray, number: int) -> list[tuple[int, np.ndarray]]:
        """Rows and images of the next group that has decodable ones, for a group that has none."""
        for other in range(number + 1, number + len(groups)):
            if good := self._decode_group(groups[other % len(groups)]):
                return good
        raise ValueError(
            f"no image of a batch can be decoded, {self._paths[groups[0, 0]]} among them; check data.images"
        )

    def _decode(self, row: int) -> np.ndarray | None:
        name = self._paths[row]
        try:
            return fit(decode_image(self._images.read(name), name=name, strict=self._strict), self._canvas)
        except UndecodableImage:
            return None


def fit(image: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """Shrinks an image larger than `canvas` (height, width) to fit, keeping its aspect ratio; others are unchanged."""
    height, width = image.shape[:2]
    scale = min(canvas[0] / height, canvas[1] / width)
    if scale >= 1:
        return image
    size = max(1, int(width * scale)), max(1, int(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
