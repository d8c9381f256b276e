"""Distances of close groups: a screen selects candidates, float32 measures them, and float64 those it leaves open."""

from collections.abc import Iterable, Iterator

import numpy as np

from cion_jax.correlation.engine.centroids import Groups, Vectors
from cion_jax.correlation.engine.distances import distance
from cion_jax.correlation.engine.exact import ExactCentroids
from cion_jax.correlation.engine.sharding import Track
from cion_jax.correlation.engine.tiles import Windows, compare
from cion_jax.runtime.arrays import RowArray
from cion_jax.runtime.processes import all_gather

_PAIRS_AT_ONCE = 2**9  # in the cache of a CPU


def near_pairs(
    groups: Groups,
    features: RowArray,
    windows: Windows,
    lengths: np.ndarray,
    sigma: float,
    track: Track,
    rows: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields, in blocks, this process's share of the pairs of groups that may be within `sigma`, and their distances.

    Args:
        groups: The groups.
        features: `[n, d]`, of their images.
        windows: The groups that each row is compared with.
        lengths: Lengths of the segments of rows.
        sigma: Cosine distance.
        track: Progress over the tiles of pairs.
        rows: `[rows]`, the groups that are compared with others; by default all.

    Returns:
        Blocks (pairs `[p, 2]` of a row's group and another, distances `[p]` as `settled_distances` gives them).
    """
    centroids, exact = groups.centroids, groups.exactly(features)
    chosen = centroids if rows is None else centroids[rows]
    for pairs in compare(chosen, centroids, windows, lengths, sigma, track):
        if rows is not None:
            pairs[:, 0] = rows[pairs[:, 0]]
        yield pairs, settled_distances(pairs, centroids, exact, sigma)


def gathered(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """The pairs `[p, 2]` in the blocks of all processes, each with its lower group first, in order."""
    pairs = np.sort(all_gather(pairs_of(blocks)), axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def pairs_of(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """All pairs in `blocks`, `[p, 2]`."""
    return np.concatenate([np.zeros((0, 2), np.int32), *blocks])


def settled_distances(pairs: np.ndarray, centroids: Vectors, exact: ExactCentroids, sigma: float) -> np.ndarray:
    """Distances `[p]` of the `pairs` `[p, 2]`, for a comparison with `sigma + TIE`.

    They are in float32, but in float64 from the images where rounding could change the outcome.
    """
    distances = pair_distances(centroids, centroids, pairs)
    doubtful = np.abs(distances - sigma) <= centroids.slack[pairs].sum(1)
    settled = distances.astype(np.float64)
    if doubtful.any():
        settled[doubtful] = exact.distances(pairs[doubtful])
    return settled


def pair_distances(rows: Vectors, columns: Vectors, pairs: np.ndarray) -> np.ndarray:
    """Distances `[p]` of the `pairs` `[p, 2]` of a row and a column, in float32."""
    distances = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        block = slice(start, start + _PAIRS_AT_ONCE)
        left, right = pairs[block].T
        products = np.einsum("pd,pd->p", rows.rows[left], columns.rows[right])
        distances[block] = distance(products * rows.scale[left] * columns.scale[right])
    return distances
