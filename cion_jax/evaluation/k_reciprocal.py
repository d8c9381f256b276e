"""k-reciprocal encoding of features, for re-ranking and for clustering, with sparse matrices.

With N(p, k) the k images nearest to p, p itself among them,

    R(p, k)  = {g in N(p, k) : p in N(g, k)}
    R*(p)    = R(p, whole), and all of R(q, half) for each q in R(p, whole)
               with |R(p, whole) & R(q, half)| > 2/3 |R(q, half)|
    V_p[g]   = exp((cos(p, g) - 1) / scale) for g in R*(p), else 0; then divided by its sum

"Re-ranking Person Re-identification with k-reciprocal Encoding" (Zhong et al., CVPR 2017). Details follow the authors'
code: "more than" 2/3 where the paper has "at least", and V divided by its sum, so that sum max = 2 - sum min for two
rows. Ties in distance go by index.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from cion_jax.evaluation.distances import blocks, cosine_distances

_ROWS_AT_ONCE = 4096  # per sparse product


class Neighbours(NamedTuple):
    """Indices of each image's nearest images, nearest first, `[n, k]`, and how many of them R and the R of R* take."""

    nearest: np.ndarray
    whole: int
    half: int


def find_neighbours(units: jax.Array, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of each image's nearest and its largest cosine distance to any.

    Args:
        units: unit features `[n, dim]`.
        count: neighbours per image, itself among them; at most n are returned.

    Returns:
        int32 `[n, min(count, n)]`, nearest first, and float32 `[n]`.
    """
    count = min(count, len(units))
    nearest = np.empty((len(units), count), np.int32)
    farthest = np.empty(len(units), np.float32)
    for rows in blocks(len(units), len(units)):
        nearest[rows], farthest[rows] = _nearest(units[rows], units, count)
    return nearest, farthest


@partial(jax.jit, static_argnames="count")
def _nearest(rows: jax.Array, units: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    distances = cosine_distances(rows, units)
    return jax.lax.top_k(-distances, count)[1], jnp.max(distances, axis=1)


def encode(units: jax.Array, neighbours: Neighbours, *, scale: np.ndarray) -> sparse.csr_array:
    """V before query expansion, `[n, n]`; `units` are unit features `[n, dim]`, `scale` is `[n]`."""
    whole = _reciprocal(neighbours.nearest[:, : neighbours.whole])
    half = _reciprocal(neighbours.nearest[:, : neighbours.half])
    starts = range(0, len(neighbours.nearest), _ROWS_AT_ONCE)
    parts = [_expanded(whole[start : start + _ROWS_AT_ONCE], half) for start in starts]
    pattern = sparse.csr_array(sparse.vstack(parts, format="csr"))
    weights = _weights(pattern, np.asarray(units), scale)
    return sparse.csr_array((weights, pattern.indices, pattern.indptr), shape=pattern.shape)


def _reciprocal(nearest: np.ndarray) -> sparse.csr_array:
    """R `[n, n]`, symmetric: 1 where two images are among each other's nearest."""
    count, k = nearest.shape
    forward = sparse.csr_array(
        (np.ones(count * k, np.int32), nearest.ravel(), np.arange(0, count * k + 1, k)), shape=(count, count)
    )
    return sparse.csr_array(forward * forward.T)


def _expanded(whole: sparse.csr_array, half: sparse.csr_array) -> sparse.csr_array:
    """R* for a block of rows of R(., whole), nonzero for members."""
    overlap = sparse.csr_array(whole * (whole @ half))  # |R(p, whole) & R(q, half)| at the q in R(p, whole)
    overlap.data = (3 * overlap.data > 2 * half.sum(axis=1)[overlap.indices]).astype(np.int32)
    overlap.eliminate_zeros()
    return sparse.csr_array(whole + overlap @ half)


def _weights(pattern: sparse.csr_array, features: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """V_p[g] (Eq. 7 of Zhong et al.) for the nonzero entries of `pattern`, in CSR order."""

    def row_weights(row: int) -> np.ndarray:
        columns = pattern.indices[pattern.indptr[row] : pattern.indptr[row + 1]]
        weights = np.exp((features[columns] @ features[row] - 1) / scale[row])
        return weights / weights.sum()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(row_weights, range(len(scale)), chunksize=64)))


def expand_queries(encoding: sparse.csr_array, nearest: np.ndarray, k2: int) -> sparse.csr_array:
    """The mean of V `[n, n]` over each image's `k2` nearest, itself among them."""
    if k2 == 1:
        return encoding
    near = nearest[:, :k2]
    count, k = near.shape
    means = sparse.csr_array(
        (np.full(count * k, 1 / k, np.float32), near.ravel(), np.arange(0, count * k + 1, k)), shape=(count, count)
    )
    return sparse.csr_array(means @ encoding)


def jaccard_row(encoding: sparse.csr_array, row: int, by_column: sparse.csc_array) -> np.ndarray:
    """The Jaccard distances 1 - sum min(V, V') / sum max(V, V') of one image to others.

    Only images that share a nonzero entry with it are visited.

    Args:
        encoding: V `[n, n]`.
        row: the image.
        by_column: the rows of V that belong to the others, `[others, n]`.

    Returns:
        float64 `[others]`.
    """
    entries = slice(encoding.indptr[row], encoding.indptr[row + 1])
    columns, values = encoding.indices[entries], encoding.data[entries]
    spans = [slice(*by_column.indptr[column : column + 2]) for column in columns]
    images = np.concatenate([by_column.indices[span] for span in spans])
    shared = np.concatenate([np.minimum(by_column.data[span], value) for span, value in zip(spans, values)])
    others, _ = cast(tuple[int, int], by_column.shape)
    overlap = np.bincount(images, weights=shared, minlength=others)
    return 1 - overlap / (2 - overlap)
