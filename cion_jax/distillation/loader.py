"""From rows to batches of decoded images: each image is decoded once, on the host, and shipped as uint8."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import grain
import jax
import numpy as np
from PIL import Image

from cion_jax.distillation.sampler import IdentitySampler
from cion_jax.samples import UndecodableImage, open_images

Paths = Sequence[str] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Batch:
    """This process's part of a global batch.

    `images` is uint8 `[b, canvas height, canvas width, 3]`, `sizes` int32 `[b, 2]` (height, width of each image in
    the upper left corner of its canvas), `replaced` how many could not be decoded and were replaced.
    """

    images: np.ndarray
    sizes: np.ndarray
    replaced: int


def load_batches(
    sampler: IdentitySampler,
    paths: Paths,
    root: Path,
    *,
    canvas: tuple[int, int],
    first_step: int = 0,
    threads: int = 4,
) -> Iterator[Batch]:
    """Batches from `first_step` to the end of training, decoded ahead by `threads` threads.

    With several processes each loads its own contiguous share of the groups of every global batch. What a global
    batch holds depends on neither processes nor threads, also where images can't be decoded.
    """
    load = _LoadGroups(paths, root, canvas)
    dataset = grain.MapDataset.source(_Steps(sampler)).slice(slice(first_step, None)).map(load)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


class _Steps(grain.sources.RandomAccessDataSource):
    """Rows `[groups, K]` of the global batch of every step, as a grain source."""

    def __init__(self, sampler: IdentitySampler):
        self._sampler = sampler

    def __len__(self) -> int:
        return len(self._sampler)

    def __getitem__(self, step: int) -> np.ndarray:
        return self._sampler[step]


class _LoadGroups(grain.transforms.Map):
    """Decodes this process's share of a global batch."""

    def __init__(self, paths: Paths, root: Path, canvas: tuple[int, int]):
        self._paths, self._images, self._canvas = paths, open_images(root), canvas

    def map(self, groups: np.ndarray) -> Batch:
        own = np.array_split(np.arange(len(groups)), jax.process_count())[jax.process_index()]
        images, replaced = [], 0
        for number in own:
            good = self._decode_group(groups[number])
            replaced += groups.shape[1] - len(good)
            good = good or self._stand_in(groups, number)
            images += [good[place % len(good)] for place in range(groups.shape[1])]
        batch = np.zeros((len(images), *self._canvas, 3), np.uint8)
        for slot, image in zip(batch, images):
            slot[: image.shape[0], : image.shape[1]] = image
        sizes = np.asarray([image.shape[:2] for image in images], np.int32)
        return Batch(batch, sizes, replaced)

    def _decode_group(self, rows: np.ndarray) -> list[np.ndarray]:
        """Those images of a group that can be decoded; they take the places of those that can't."""
        decoded = (self._decode(row) for row in rows)
        return [image for image in decoded if image is not None]

    def _stand_in(self, groups: np.ndarray, number: int) -> list[np.ndarray]:
        """The images of the next group of the global batch that has any, for a group that has none."""
        for other in range(number + 1, number + len(groups)):
            if good := self._decode_group(groups[other % len(groups)]):
                return good
        raise ValueError(
            f"no image of a batch can be decoded, {self._paths[groups[0, 0]]} among them; check data.images"
        )

    def _decode(self, row: int) -> np.ndarray | None:
        try:
            return fit(self._images.load(self._paths[row]), self._canvas)
        except UndecodableImage:
            return None


def fit(image: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """Shrinks an image that is larger than `canvas` (height, width) to fit, keeping its shape; others stay."""
    height, width = image.shape[:2]
    scale = min(canvas[0] / height, canvas[1] / width)
    if scale >= 1:
        return image
    size = max(1, int(width * scale)), max(1, int(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
