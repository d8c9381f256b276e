"""Single-tracklet denoising (Eq. 4): removes images that deviate from the rest of their tracklet."""

import functools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cion_jax.correlation.engine import rounding
from cion_jax.correlation.engine.distances import SHORTEST_SUM, TIE, distance, similarities, unit
from cion_jax.correlation.engine.padding import padded_batches
from cion_jax.correlation.engine.sharding import (
    Track,
    bucketed,
    own_devices,
    own_share,
    padded_to_devices,
    split_over_devices,
)
from cion_jax.runtime.arrays import RowArray
from cion_jax.runtime.mesh import double_buffered
from cion_jax.runtime.platform import on_cpu
from cion_jax.runtime.processes import all_gather

BATCH_BYTES = 24 * 2**20  # of float32 images per device and batch
# For tracklets of these lengths all pairwise products are computed at once. Shorter ones lose few images, and for
# longer ones the products need too much memory: there they are computed one row at a time, per removed image.
SQUARE_LENGTHS = range(65, 2049)
# Longer tracklets always have near-ties that float32 cannot decide: they run in float64 from the start.
LONGEST_FLOAT32 = 256


def _chunk_bytes() -> int:
    """Bytes processed at a time: what fits into the cache of a CPU, or fills a GPU."""
    return 2**20 if on_cpu() else 2**26


def denoise_tracklets(
    features: RowArray,
    tracklets: np.ndarray,
    sigma_cst: float,
    track: Track,
) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 4, for all tracklets. Equals `reference.denoise_tracklet`.

        x_dev = argmax_{x_i in t} dist(x_i, c_{t \\ x_i})
        t <- t \\ x_dev    while dist(x_dev, c_{t \\ x_dev}) >= sigma_cst

        x_i [d] L2-normalised image feature,   c_t [d] mean of the x_i in t,   dist = cosine distance

    Equal distances: lowest row. A tracklet of one image is left alone.

    Args:
        features: `[n, d]`, may be a memory map and need not be normalised.
        tracklets: `[n]`, the tracklet of each row, 0 to T-1, all of them present.
        sigma_cst: Cosine distance.
        track: Progress over this process's share of the images.

    Returns:
        Mask `[n]` of the images kept, and sums `[T, d]` of their unit features.
    """
    job = _Job(features, np.argsort(tracklets, kind="stable"), np.bincount(tracklets), sigma_cst)
    with track(len(features)) as advance:
        doubtful = job.run(np.flatnonzero(job.lengths <= LONGEST_FLOAT32), jnp.float32, advance)
        long = np.flatnonzero(job.lengths > LONGEST_FLOAT32)
        with jax.enable_x64(True):
            job.run(np.concatenate([long, doubtful]), jnp.float64, advance)
    return job.result()


class _Job:
    """The tracklets, and the results of this process's share of them."""

    def __init__(self, features: RowArray, rows: np.ndarray, lengths: np.ndarray, sigma_cst: float):
        self.features, self.rows, self.lengths, self.sigma_cst = features, rows, lengths, sigma_cst
        self.starts = np.cumsum(lengths) - lengths
        self.sums = np.zeros((len(lengths), features.shape[1]), np.float32)
        self.excluded = [np.zeros(0, np.int64)]
        self.settled = [np.zeros(0, np.int64)]

    def run(self, tracklets: np.ndarray, dtype: Any, advance: Callable[[int], None]) -> np.ndarray:
        """Denoises these tracklets; returns those of all processes that `dtype` cannot decide."""
        doubtful = [np.zeros(0, np.int64)]
        for batch, row, inside, results in double_buffered(self._denoised(tracklets, dtype)):
            kept, sums, doubt = (np.asarray(array)[: len(batch)] for array in results)
            self.excluded.append(row[inside & ~kept & ~doubt[:, None]])
            self.sums[batch[~doubt]] = sums[~doubt]
            self.settled.append(batch[~doubt])
            doubtful.append(batch[doubt])
            advance(int(self.lengths[batch[~doubt]].sum()))
        return all_gather(np.concatenate(doubtful))

    def _denoised(self, tracklets: np.ndarray, dtype: Any) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, Any]]:
        """Yields batches (tracklets `[b]`, rows `[b, width]`, mask of real rows, results on the device)."""
        mesh, row_bytes = own_devices(), self.features.shape[1] * jnp.dtype(dtype).itemsize
        lengths = self.lengths[tracklets]
        square_bytes = jnp.dtype(dtype).itemsize * (lengths.max(initial=0) in SQUARE_LENGTHS)
        for width, members in own_share(
            list(padded_batches(lengths, row_bytes, square_bytes, mesh.size * BATCH_BYTES))
        ):
            batch = tracklets[members]
            starts, counts = self.starts[batch, None], self.lengths[batch, None]
            inside = np.arange(width) < counts
            row = self.rows[np.where(inside, starts + np.arange(width), starts)]
            chunk = max(1, _chunk_bytes() // (width * row_bytes))
            program = _program(mesh, dtype, min(chunk, bucketed(-(-len(batch) // mesh.size))))
            images = padded_to_devices(mesh, self.features[row], self.lengths[batch])
            yield batch, row, inside, program(np.asarray(self.sigma_cst, dtype), images)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """The result of `denoise_tracklets`, gathered over all processes."""
        kept = np.ones(len(self.features), bool)
        kept[all_gather(np.concatenate(self.excluded))] = False
        if jax.process_count() > 1:
            own = np.concatenate(self.settled)
            self.sums[all_gather(own)] = all_gather(self.sums[own])
        return kept, self.sums


@functools.cache
def _program(mesh: Mesh, dtype: Any, chunk: int) -> Callable[..., Any]:
    """`(sigma_cst, (features [b, width, d], lengths [b])) -> (kept, sums, doubtful)`: Eq. 4, split over `mesh`.

    A device processes its tracklets `chunk` at a time: repeated reads hit the cache, and tracklets that lose few
    images do not wait for those that lose many.
    """

    def denoise(sigma_cst: jax.Array, tracklets: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        return jax.lax.map(lambda tracklet: _denoise(sigma_cst, dtype, *tracklet), tracklets, batch_size=chunk)

    return split_over_devices(denoise, mesh)


def _denoise(sigma_cst: jax.Array, dtype: Any, features: jax.Array, length: jax.Array) -> tuple[jax.Array, ...]:
    """Eq. 4 for one padded tracklet `[width, d]`: (kept `[width]`, sum `[d]` of the kept unit features, doubtful)."""
    width, dim = features.shape
    valid = jnp.arange(width) < length
    features = jnp.where(valid[:, None], unit(features.astype(dtype)), 0)
    products = _all_products if width in SQUARE_LENGTHS else _products_on_demand
    affinity_among, similarities_to = products(features)
    error = None if dtype == jnp.float64 else rounding.product_error(dim)
    remove = partial(_remove_farthest, similarities_to=similarities_to, sigma_cst=sigma_cst, error=error)

    def remove_up_to_half(state: _Removal) -> _Removal:
        affinity = affinity_among(state.kept)
        fresh = state._replace(affinity=affinity, carry=jnp.zeros_like(affinity))
        enough = state.kept.sum() // 2
        return jax.lax.while_loop(lambda now: ~now.done & (now.kept.sum() > enough), remove, fresh)

    zeros, false = jnp.zeros(width, dtype), jnp.zeros((), bool)
    end = jax.lax.while_loop(
        lambda state: ~state.done, remove_up_to_half, _Removal(valid, length <= 1, false, zeros, zeros)
    )
    sums = _products(features.T, end.kept.astype(dtype))
    return end.kept, sums.astype(jnp.float32), end.doubtful


def _all_products(features: jax.Array) -> tuple[Callable, Callable]:
    """Functions of the mask kept -> x_i . sum of the *other* images kept, `[m]`, and of row -> x_i . x_row, `[m]`."""
    others = similarities(features, features) * (1 - jnp.eye(len(features), dtype=features.dtype))
    return lambda kept: others.sum(1, where=kept), lambda row: others[row]


def _products_on_demand(features: jax.Array) -> tuple[Callable, Callable]:
    """The same functions, with products computed as images are removed."""

    def affinity_among(kept: jax.Array) -> jax.Array:
        total = _products(features.T, kept.astype(features.dtype))
        return _products(features, total) - 1  # x . x = 1 is the image's own contribution

    return affinity_among, lambda row: _products(features, features[row])


def _products(features: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.matmul(features, vector, precision=jax.lax.Precision.HIGHEST)


class _Removal(NamedTuple):
    """State of the removals. `affinity` `[m]` is x_i . sum of the *other* images kept.

    It is updated in O(m) per removal, and recomputed when half of the images are gone, because its rounding error
    grows with the number it started from. `carry` is the compensation term of Kahan's subtraction.
    `doubtful`: rounding could change a decision; the removals so far are void.
    """

    kept: jax.Array
    done: jax.Array
    doubtful: jax.Array
    affinity: jax.Array
    carry: jax.Array


def _remove_farthest(state: _Removal, similarities_to: Callable, sigma_cst: jax.Array, error: float | None) -> _Removal:
    """Removes the image that deviates most; done if its deviation is below `sigma_cst` or it is the last.

    `error` bounds that of one float32 product; None in float64, which decides everything.
    """
    count = state.kept.sum()
    distances, length = _deviations(state.affinity, state.kept)
    deviation = jnp.where(state.kept, distances, -1)
    largest = deviation.max()
    window = jnp.where(count == 2, 2.0, TIE)  # the last two are a tie, whatever rounding makes of it
    row = jnp.argmax(state.kept & (deviation >= largest - window))  # lowest row of those that tie
    removed = (largest >= sigma_cst - TIE) & (count > 1)
    doubtful = state.doubtful
    if error is not None:
        shortest = jnp.min(length, where=state.kept, initial=count)
        margin = _margin(error, count, shortest)
        second = deviation.at[row].set(-1).max()
        doubtful = (count > 1) & (jnp.abs(largest - sigma_cst) <= margin)
        doubtful |= removed & (count > 2) & (second >= largest - 2 * margin)
    kept = state.kept.at[row].set(state.kept[row] & ~removed)
    change = -similarities_to(row) - state.carry
    affinity = state.affinity + change
    carry = (affinity - state.affinity) - change
    return _Removal(kept, ~removed | doubtful, doubtful, affinity, carry)


def _deviations(affinity: jax.Array, kept: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Distances `[m]` of images to the mean of the others kept, and lengths `[m]` of the sum of these others.

    Both follow from `affinity` a_i = x_i . (S - x_i) alone: with unit features and S the sum of the n kept,
    |S|^2 = n + sum_j a_j and |S - x_i|^2 = |S|^2 - 2 a_i - 1, so

        dist = 1 - a_i / sqrt(n - 1 + sum_j a_j - 2 a_i)
    """
    squared = kept.sum() - 1 + jnp.sum(affinity, where=kept) - 2 * affinity
    length = jnp.sqrt(jnp.maximum(squared, SHORTEST_SUM**2))
    return distance(affinity / length), length


def _margin(error: float, count: jax.Array, length: jax.Array) -> jax.Array:
    """Error bound of a deviation, if each of the n - 1 products in an affinity is off by `error`.

    With e = error + n u for summing them, a_i is off by (n - 1) e and the squared length R^2 by n (n - 1) e, hence
    a_i / R, with a_i <= R and r = R / (n - 1) <= 1, by e (1 / r + 2 / r^2) <= 3 e / r^2.
    """
    share = length / jnp.maximum(count - 1, 1)
    return 3 * (error + count * rounding.FLOAT32) / jnp.square(share)
