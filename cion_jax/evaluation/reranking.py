"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) with sparse matrices: no dense n x n matrix is stored.

For all n = queries + gallery images, let d(p, g) be the squared Euclidean distance of unit features divided by its
maximum over g (equal to the cosine distance divided by its maximum), and N(p, k) the k nearest images of p and p:

    R(p, k)  = {g in N(p, k) : p in N(g, k)}
    R*(p, k) = R(p, k), and all of R(q, k/2) for each q in R(p, k) with |R(p, k) & R(q, k/2)| > 2/3 |R(q, k/2)|
    V_p[g]   = exp(-d(p, g)) for g in R*(p, k1), else 0; then divided by its sum
    V_p     <- mean of V_q over the k2 nearest q of p, p itself among them
    J(p, g)  = 1 - sum_i min(V_p[i], V_g[i]) / sum_i max(V_p[i], V_g[i])
    d*(p, g) = (1 - lambda) J(p, g) + lambda d(p, g)

Details follow the authors' code: "more than" 2/3 where the paper has "at least", k/2 rounded half to even, and V
divided by its sum (so that sum max = 2 - sum min). Ties in distance go by index, queries first.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from cion_jax.evaluation.distances import blocks, cosine_distances, unit_rows
from cion_jax.evaluation.ranking import DistancesOf

_ROWS_AT_ONCE = 4096  # per sparse product
_SAME = 1e-6  # cosine distances up to this are rounding errors


class KReciprocal(NamedTuple):
    """Settings of re-ranking; defaults are the paper's for Market-1501. `lambda_` is the original distance's weight."""

    k1: int = 20
    k2: int = 6
    lambda_: float = 0.3


def reranked_distances(query: np.ndarray, gallery: np.ndarray, settings: KReciprocal) -> DistancesOf:
    """Returns a function that computes d* `[rows, gallery]` for the queries with the given indices.

    Costs n^2 dim multiply-adds, and memory for two copies of the features plus a few hundred numbers per image.

    Args:
        query: features `[queries, dim]`.
        gallery: features `[gallery, dim]`.
        settings: k1, k2 and lambda.

    Raises:
        ValueError: Settings are out of range, or all features are equal.
    """
    _check(settings)
    everyone = unit_rows(np.concatenate([query, gallery]))
    nearest, farthest = _neighbours(everyone, min(max(settings.k1 + 1, settings.k2), len(everyone)))
    encoding = _expand_queries(_encode(everyone, nearest, farthest, settings.k1), nearest, settings.k2)
    by_column = sparse.csc_array(encoding[len(query) :])
    gallery_unit = everyone[len(query) :]

    def distances_of(rows: np.ndarray) -> np.ndarray:
        original = np.asarray(cosine_distances(everyone[rows], gallery_unit)) / farthest[rows, None]
        final = np.float32(settings.lambda_) * original
        for row, number in enumerate(rows):
            final[row] += (1 - settings.lambda_) * _jaccard(encoding, number, by_column, len(gallery))
        return final

    return distances_of


def _check(settings: KReciprocal) -> None:
    if settings.k1 < 1 or settings.k2 < 1 or not 0 <= settings.lambda_ <= 1:
        raise ValueError(f"re-ranking with {settings}: k1 and k2 are at least 1 and lambda is between 0 and 1")


def _neighbours(everyone: jax.Array, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of each image's `count` nearest, `[n, count]`, nearest first, and its largest distance to any, `[n]`."""
    nearest = np.empty((len(everyone), count), np.int32)
    farthest = np.empty(len(everyone), np.float32)
    for rows in blocks(len(everyone), len(everyone)):
        nearest[rows], farthest[rows] = _nearest(everyone[rows], everyone, count)
    if farthest.min() <= _SAME:
        raise ValueError("the features of all images are equal, there is nothing to rank by; check model and weights")
    return nearest, farthest


@partial(jax.jit, static_argnames="count")
def _nearest(rows: jax.Array, everyone: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    distances = cosine_distances(rows, everyone)
    return jax.lax.top_k(-distances, count)[1], jnp.max(distances, axis=1)


def _encode(everyone: jax.Array, nearest: np.ndarray, farthest: np.ndarray, k1: int) -> sparse.csr_array:
    """V before query expansion, `[n, n]`."""
    reciprocal = _reciprocal(nearest[:, : k1 + 1])
    half = _reciprocal(nearest[:, : int(np.around(k1 / 2)) + 1])
    starts = range(0, len(nearest), _ROWS_AT_ONCE)
    parts = [_expanded(reciprocal[start : start + _ROWS_AT_ONCE], half) for start in starts]
    pattern = sparse.csr_array(sparse.vstack(parts, format="csr"))
    weights = _weights(pattern, np.asarray(everyone), farthest)
    return sparse.csr_array((weights, pattern.indices, pattern.indptr), shape=pattern.shape)


def _reciprocal(nearest: np.ndarray) -> sparse.csr_array:
    """R `[n, n]`, symmetric: 1 where two images are among each other's nearest."""
    count, k = nearest.shape
    forward = sparse.csr_array(
        (np.ones(count * k, np.int32), nearest.ravel(), np.arange(0, count * k + 1, k)), shape=(count, count)
    )
    return sparse.csr_array(forward * forward.T)


def _expanded(reciprocal: sparse.csr_array, half: sparse.csr_array) -> sparse.csr_array:
    """R* for a block of rows of R, nonzero for members."""
    overlap = sparse.csr_array(reciprocal * (reciprocal @ half))  # |R(p, k) & R(q, k/2)| at the q in R(p, k)
    overlap.data = (3 * overlap.data > 2 * half.sum(axis=1)[overlap.indices]).astype(np.int32)
    overlap.eliminate_zeros()
    return sparse.csr_array(reciprocal + overlap @ half)


def _weights(pattern: sparse.csr_array, features: np.ndarray, farthest: np.ndarray) -> np.ndarray:
    """V_p[g] (Eq. 7 of Zhong et al.) for the nonzero entries of `pattern`, in CSR order."""

    def row_weights(row: int) -> np.ndarray:
        columns = pattern.indices[pattern.indptr[row] : pattern.indptr[row + 1]]
        weights = np.exp((features[columns] @ features[row] - 1) / farthest[row])
        return weights / weights.sum()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(row_weights, range(len(farthest)), chunksize=64)))


def _expand_queries(encoding: sparse.csr_array, nearest: np.ndarray, k2: int) -> sparse.csr_array:
    if k2 == 1:
        return encoding
    near = nearest[:, :k2]
    count, k = near.shape
    means = sparse.csr_array(
        (np.full(count * k, 1 / k, np.float32), near.ravel(), np.arange(0, count * k + 1, k)), shape=(count, count)
    )
    return sparse.csr_array(means @ encoding)


def _jaccard(encoding: sparse.csr_array, query: int, by_column: sparse.csc_array, gallery: int) -> np.ndarray:
    """J `[gallery]` of one query and the whole gallery; only images that share a nonzero entry are visited."""
    entries = slice(encoding.indptr[query], encoding.indptr[query + 1])
    columns, values = encoding.indices[entries], encoding.data[entries]
    spans = [slice(*by_column.indptr[column : column + 2]) for column in columns]
    images = np.concatenate([by_column.indices[span] for span in spans])
    shared = np.concatenate([np.minimum(by_column.data[span], value) for span, value in zip(spans, values)])
    overlap = np.bincount(images, weights=shared, minlength=gallery)
    return 1 - overlap / (2 - overlap)
