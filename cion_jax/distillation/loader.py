"""From rows to batches of decoded images: each image is decoded once, on the host, and shipped as uint8."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import grain
import jax
import numpy as np
from PIL import Image

from cion_jax.distillation.sampler import IdentitySampler
from cion_jax.samples import UndecodableImage, load_image

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

    With several processes each loads its own contiguous share of the groups of every global batch.
    """
    load = _LoadGroups(paths, root, canvas)
    dataset = grain.MapDataset.source(_ProcessGroups(sampler)).slice(slice(first_step, None)).map(load)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


class _ProcessGroups(grain.sources.RandomAccessDataSource):
    """Rows `[groups, K]` of every step for this process, as a grain source."""

    def __init__(self, sampler: IdentitySampler):
        self._sampler = sampler

    def __len__(self) -> int:
        return len(self._sampler)

    def __getitem__(self, step: int) -> np.ndarray:
        return np.array_split(self._sampler[step], jax.process_count())[jax.process_index()]


class _LoadGroups(grain.transforms.Map):
    def __init__(self, paths: Paths, root: Path, canvas: tuple[int, int]):
        self._paths, self._root, self._canvas = paths, root, canvas

    def map(self, groups: np.ndarray) -> Batch:
        decoded = [[self._decode(row) for row in group] for group in groups]
        replaced = sum(image is None for group in decoded for image in group)
        images = [image for group in _fill(decoded, groups, self._paths) for image in group]
        batch = np.zeros((len(images), *self._canvas, 3), np.uint8)
        for slot, image in zip(batch, images):
            slot[: image.shape[0], : image.shape[1]] = image
        sizes = np.asarray([image.shape[:2] for image in images], np.int32)
        return Batch(batch, sizes, replaced)

    def _decode(self, row: int) -> np.ndarray | None:
        try:
            return fit(load_image(self._root / self._paths[row]), self._canvas)
        except UndecodableImage:
            return None


def _fill(decoded: list, groups: np.ndarray, paths: Paths) -> list:
    """Replaces images that failed by others of their group, and groups that failed whole by another group."""
    good = [[image for image in group if image is not None] for group in decoded]
    whole = next((images for images in good if images), None)
    if whole is None:
        raise ValueError(f"no image of a batch can be decoded, {paths[groups[0, 0]]} among them; check data.images")
    k = groups.shape[1]
    return [[(images or whole)[i % len(images or whole)] for i in range(k)] for images in good]


def fit(image: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """Shrinks an image that is larger than `canvas` (height, width) to fit, keeping its shape; others stay."""
    height, width = image.shape[:2]
    scale = min(canvas[0] / height, canvas[1] / width)
    if scale >= 1:
        return image
    size = max(1, int(width * scale)), max(1, int(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
