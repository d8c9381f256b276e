"""Pairs of close groups: a screen selects candidates, float32 decides, and float64 decides what float32 cannot."""

from collections.abc import Iterable

import numpy as np

from cion_jax.correlation.engine.centroids import Groups, Vectors
from cion_jax.correlation.engine.distances import TIE, distance
from cion_jax.correlation.engine.sharding import Track
from cion_jax.correlation.engine.tiles import Windows, compare
from cion_jax.runtime.processes import all_gather

_PAIRS_AT_ONCE = 2**9  # in the cache of a CPU


def close_pairs(
    groups: Groups,
    features: np.ndarray,
    lengths: np.ndarray,
    half_width: int,
    sigma: float,
    track: Track,
) -> np.ndarray:
    """The pairs i < j `[p, 2]` int32 of one segment, j - i <= half_width, dist(c_i, c_j) <= sigma, in order.

    The groups are in segments of these `lengths`; `features` `[n, d]` are those of their images.
    `track` reports progress over the tiles.
    """
    centroids = groups.centroids
    candidates = pairs_of(compare(centroids, centroids, Windows.within(lengths, half_width), lengths, sigma, track))
    pairs = all_gather(candidates[are_close(candidates, centroids, groups, features, sigma)])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def pairs_of(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """All pairs that `compare` yields, `[p, 2]`."""
    return np.concatenate([np.zeros((0, 2), np.int32), *blocks])


def are_close(pairs: np.ndarray, centroids: Vectors, groups: Groups, features: np.ndarray, sigma: float) -> np.ndarray:
    """Mask `[p]` of the `pairs` `[p, 2]` with dist <= sigma, in float32 or, where rounding matters, float64."""
    distances = pair_distances(centroids, centroids, pairs)
    slack = centroids.slack[pairs].sum(1)
    close, doubtful = distances <= sigma, np.abs(distances - sigma) <= slack
    if doubtful.any():
        close[doubtful] = groups.exactly(features).distances(pairs[doubtful]) <= sigma + TIE
    return close


def pair_distances(rows: Vectors, columns: Vectors, pairs: np.ndarray) -> np.ndarray:
    """Distances `[p]` of the `pairs` `[p, 2]` of a row and a column, in float32."""
    distances = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        block = slice(start, start + _PAIRS_AT_ONCE)
        left, right = pairs[block].T
        products = np.einsum("pd,pd->p", rows.rows[left], columns.rows[right])
        distances[block] = distance(products * rows.scale[left] * columns.scale[right])
    return distances
