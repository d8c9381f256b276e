"""Single-tracklet denoising (Eq. 4): images that stray from the rest of their tracklet leave it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cion_jax.correlation.distances import SHORTEST_SUM, TIE, distance, similarities, unit
from cion_jax.correlation.padding import padded_batches

BATCH_BYTES = 64 * 2**20
# Up to this length all products of a tracklet's images are taken at once. Beyond it they are taken one row at
# a time, as images leave, so that a tracklet of tens of thousands of images needs no more than its features.
LONGEST_SQUARE = 2048


def denoise_tracklets(features: np.ndarray, tracklets: np.ndarray, sigma_cst: float) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 4: which images their tracklets keep `[n]`, and the sums `[tracklets, d]` of their unit features.

        t <- t \\ {x},  x = argmax_{x_i in t} dist(x_i, mean(t \\ {x_i})),  while that distance >= sigma_cst

    `features` `[n, d]` may be a memory map and need not be normalised; `tracklets` `[n]` numbers the tracklet
    of each row, 0 to T-1, all of them present. A tracklet of one image is left alone. Equal distances: lowest
    row.
    """
    lengths = np.bincount(tracklets)
    rows = np.argsort(tracklets, kind="stable")
    starts = np.cumsum(lengths) - lengths
    dim = features.shape[1]
    kept = np.zeros(len(features), bool)
    sums = np.zeros((len(lengths), dim), np.float32)
    for width, batch in padded_batches(lengths, row_bytes=8 * dim, square_bytes=4, budget=BATCH_BYTES):
        inside = np.arange(width) < lengths[batch, None]
        row = rows[np.where(inside, starts[batch, None] + np.arange(width), starts[batch, None])]
        batch_kept, batch_sums = _denoise_batch(features[row], lengths[batch], np.float32(sigma_cst))
        kept[row[inside]] = np.asarray(batch_kept)[inside]
        sums[batch] = np.asarray(batch_sums)
    return kept, sums


@jax.jit
def _denoise_batch(features: Any, lengths: Any, sigma_cst: Any) -> tuple[jax.Array, jax.Array]:
    """Eq. 4 for padded tracklets `[b, width, d]`: which images are kept `[b, width]`, their sums `[b, d]`."""
    return jax.vmap(_denoise, in_axes=(0, 0, None))(features, lengths, sigma_cst)


def _denoise(features: jax.Array, length: jax.Array, sigma_cst: jax.Array) -> tuple[jax.Array, jax.Array]:
    width = len(features)
    valid = jnp.arange(width) < length
    features = jnp.where(valid[:, None], unit(features), 0)
    products = _all_products if width <= LONGEST_SQUARE else _products_on_demand
    affinity_among, similarities_to = products(features)

    def remove_up_to_half(state: _Removal) -> _Removal:
        affinity = affinity_among(state.kept)
        fresh = _Removal(state.kept, state.done, affinity, jnp.zeros_like(affinity))
        enough = state.kept.sum() // 2
        step = partial(_remove_farthest, similarities_to=similarities_to, sigma_cst=sigma_cst)
        return jax.lax.while_loop(lambda now: ~now.done & (now.kept.sum() > enough), step, fresh)

    nothing = jnp.zeros(width)
    start = _Removal(valid, jnp.zeros((), bool), nothing, nothing)
    kept = jax.lax.while_loop(lambda state: ~state.done, remove_up_to_half, start).kept
    return kept, features.sum(0, where=kept[:, None])


def _all_products(features: jax.Array) -> tuple[Callable, Callable]:
    """Two functions: each image's x_i . sum of the *other* images kept, and each image's x_i . x_row."""
    others = similarities(features, features) * (1 - jnp.eye(len(features)))
    return lambda kept: others.sum(1, where=kept), lambda row: others[row]


def _products_on_demand(features: jax.Array) -> tuple[Callable, Callable]:
    """The same functions for a tracklet too long to take all products at once."""

    def affinity_among(kept: jax.Array) -> jax.Array:
        total = features.sum(0, where=kept[:, None])
        return similarities(features, total[None])[:, 0] - 1  # x . x = 1 is the image's own share

    return affinity_among, lambda row: similarities(features, features[None, row])[:, 0]


class _Removal(NamedTuple):
    """Where the removals stand. `affinity` `[m]` is x_i . sum of the *other* images kept.

    It is updated in O(m) as images leave, and taken anew when half of them are gone, because its rounding
    grows with the number it started from. `carry` is what Kahan's compensated subtraction keeps in between.
    """

    kept: jax.Array
    done: jax.Array
    affinity: jax.Array
    carry: jax.Array


def _remove_farthest(state: _Removal, similarities_to: Callable, sigma_cst: jax.Array) -> _Removal:
    """Removes the image that deviates most, or is done if that one is closer than `sigma_cst` or the last."""
    deviation = jnp.where(state.kept, _deviations(state.affinity, state.kept), -1)
    largest = deviation.max()
    row = jnp.argmax(deviation >= largest - TIE)  # the first, hence lowest, of those that tie
    removed = (largest >= sigma_cst) & (state.kept.sum() > 1)
    kept = state.kept.at[row].set(state.kept[row] & ~removed)
    change = -similarities_to(row) - state.carry
    affinity = state.affinity + change
    carry = (affinity - state.affinity) - change
    return _Removal(kept, ~removed, affinity, carry)


def _deviations(affinity: jax.Array, kept: jax.Array) -> jax.Array:
    """Distances `[m]` of images to the mean of the others kept, from `affinity` a_i = x_i . (S - x_i) alone.

    With unit features and S the sum of the n kept, |S|^2 = n + sum_j a_j and |S - x_i|^2 = |S|^2 - 2 a_i - 1,
    so dist = 1 - a_i / sqrt(n - 1 + sum_j a_j - 2 a_i).
    """
    squared = kept.sum() - 1 + jnp.sum(affinity, where=kept) - 2 * affinity
    return distance(affinity / jnp.sqrt(jnp.maximum(squared, SHORTEST_SUM**2)))
