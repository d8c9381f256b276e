"""Feature extraction: images are decoded ahead of the device and run through a model in batches of one shape."""

import functools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cion_jax.runtime.arrays import ArrayWriter
from cion_jax.runtime.files import atomic_path
from cion_jax.runtime.platform import inference_options
from cion_jax.runtime.progress import progress
from cion_jax.runtime.shards import WHOLE, Shard
from cion_jax.samples import IMAGENET_MEAN, IMAGENET_STD, ImageBatch, load_batches, load_image

DTYPES = ("float16", "float32")
PRECISIONS = ("auto", "float32", "bfloat16")
RGB = tuple[float, float, float]
Paths = Sequence[str | os.PathLike] | np.ndarray


def chosen_precision(precision: str) -> str:
    """The number type that a network computes features in: for "auto" bfloat16 on GPUs and float32 elsewhere.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    return "bfloat16" if jax.default_backend() == "gpu" else "float32"


class Extraction(NamedTuple):
    """The features of a list of images.

    Attributes:
        features: `[kept, dim]`, L2-normalised.
        rows: `[kept]` int64, ascending; the image that each feature belongs to.
        undecodable: the reason for each image left out, by row.
    """

    features: np.ndarray
    rows: np.ndarray
    undecodable: dict[int, str]


def extract_features(
    model: nnx.Module,
    paths: Paths,
    *,
    size: tuple[int, int] = (256, 128),
    mean: RGB = IMAGENET_MEAN,
    std: RGB = IMAGENET_STD,
    batch_size: int = 64,
    precision: str | None = None,
    dtype: str = "float16",
    out: str | os.PathLike | None = None,
    load: Callable[[Any], np.ndarray] = load_image,
    shard: Shard = WHOLE,
) -> Extraction:
    """Runs images through `model` in evaluation mode and L2-normalises its output.

    All batches have one shape, so the model is compiled once. Products of float32 run at full precision (no TF32 on
    GPUs). A shard processes its share of the batches of the whole job, unchanged: features
    are bitwise those of a single call on the same kind of machine.

    Args:
        model: maps normalised images `[b, h, w, 3]` to features `[b, dim]`.
        paths: the images, in any form that `load` takes.
        size: height and width in pixels that images are resized to.
        mean, std: images become (rgb / 255 - mean) / std.
        batch_size: images per batch.
        precision: number type that the model computes in, one of `PRECISIONS`; None leaves it as the model was made.
        dtype: "float16" or "float32", of the features returned.
        out: `.npy` file to write batch by batch, atomically; the features returned are then memory-mapped.
        load: reads the image of a path; by default from a file.
        shard: this call's part of the work.

    Returns:
        The features, their rows, and the images that could not be decoded.

    Raises:
        ValueError: no image can be decoded, or a feature is not finite or all zero (the row and file are named).
    """
    if not len(paths):
        raise ValueError("no images to extract features from")
    if batch_size < 1 or dtype not in DTYPES:
        raise ValueError(f"batch_size {batch_size} and dtype {dtype!r}: expected >= 1 and one of {DTYPES}")
    batch_size = min(batch_size, len(paths))
    part = _rows_of(shard, len(paths), batch_size)
    loaded = load_batches(paths, size, batch_size, load=load, rows=part)
    forward = functools.partial(*embedder(model, mean, std, precision))
    batches = _feature_batches(forward, loaded, paths)
    if out is None:
        parts: list[np.ndarray] = []
        rows, undecodable = _collect(batches, part, lambda part: parts.append(part.astype(dtype)))
        return Extraction(np.concatenate(parts), rows, undecodable)
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        writer = ArrayWriter(file, np.dtype(dtype))
        rows, undecodable = _collect(batches, part, writer.append)
        writer.finish()
    return Extraction(np.load(out, mmap_mode="r"), rows, undecodable)


def _rows_of(shard: Shard, images: int, batch_size: int) -> range:
    """The rows of a shard: whole batches of the unsharded job, so that every row keeps its batch."""
    batches = -(-images // batch_size)
    if shard.count > batches:
        raise ValueError(f"{shard.count} shards of {batches} batches of {batch_size}: make at most {batches} shards")
    part = shard.part(batches)
    return range(part.start * batch_size, min(part.stop * batch_size, images))


def embedder(
    model: nnx.Module, mean: RGB = IMAGENET_MEAN, std: RGB = IMAGENET_STD, precision: str | None = None
) -> tuple[Callable[[nnx.State, np.ndarray], jax.Array], nnx.State]:
    """A jitted function `(state, images)` from `[b, h, w, 3]` uint8 to `[b, dim]` float32 unit vectors, and its state.

    The model's own mode, training or evaluation, and the number type that it computes in are unchanged.
    """
    evaluated = nnx.merge(*nnx.split(model))
    evaluated.eval()
    if precision is not None:
        evaluated.set_attributes(dtype=jnp.dtype(chosen_precision(precision)), raise_if_not_found=False)
    graph, state = nnx.split(evaluated)

    @functools.partial(jax.jit, compiler_options=inference_options())
    def forward(state: nnx.State, images: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            scaled = (images.astype(jnp.float32) / 255 - jnp.array(mean)) / jnp.array(std)
            features = nnx.merge(graph, state)(scaled).astype(jnp.float32)
        return features / jnp.linalg.norm(features, axis=1, keepdims=True)

    return forward, state


def _feature_batches(
    forward: Callable[[np.ndarray], jax.Array], batches: Iterator[ImageBatch], paths: Paths
) -> Iterator[tuple[ImageBatch, np.ndarray]]:
    """Yields batches with the features of their decoded images; the device runs one batch ahead."""
    running: deque[tuple[ImageBatch, jax.Array]] = deque()
    for batch in batches:
        running.append((batch, forward(batch.images)))
        if len(running) > 1:
            yield _fetch(*running.popleft(), paths)
    yield _fetch(*running.popleft(), paths)


def _fetch(batch: ImageBatch, features: jax.Array, paths: Paths) -> tuple[ImageBatch, np.ndarray]:
    values = np.asarray(features)[batch.slots]
    bad = batch.rows[~np.isfinite(values).all(axis=1)]
    if bad.size:
        raise ValueError(
            f"the model's output for row {bad[0]} ({paths[bad[0]]}) is not finite or all zero; "
            "check the weights and that they belong to this model"
        )
    return batch, values


def _collect(
    batches: Iterator[tuple[ImageBatch, np.ndarray]], part: range, write: Callable[[np.ndarray], None]
) -> tuple[np.ndarray, dict[int, str]]:
    rows: list[np.ndarray] = []
    undecodable: dict[int, str] = {}
    with progress("extract", len(part)) as advance:
        for batch, features in batches:
            write(features)
            rows.append(batch.rows)
            undecodable.update(batch.undecodable)
            advance(len(batch.rows) + len(batch.undecodable))
    if len(undecodable) == len(part):
        raise ValueError(f"none of {len(part)} images can be decoded; the first: {undecodable[part[0]]}")
    return np.concatenate(rows), undecodable
