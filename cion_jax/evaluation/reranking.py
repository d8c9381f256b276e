"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) with sparse matrices: no dense n x n matrix is stored.

For all n = queries + gallery images, let d(p, g) be the squared Euclidean distance of unit features divided by its
maximum over g (equal to the cosine distance divided by its maximum), and N(p, k) the k nearest images of p and p.
With the encoding V of `cion_jax.evaluation.k_reciprocal`, in which V_p[g] is proportional to exp(-d(p, g)),

    V_p     <- mean of V_q over the k2 nearest q of p, p itself among them
    J(p, g)  = 1 - sum_i min(V_p[i], V_g[i]) / sum_i max(V_p[i], V_g[i])
    d*(p, g) = (1 - lambda) J(p, g) + lambda d(p, g)

R*(p, k1) takes k1 + 1 and half of k1, rounded half to even, + 1 neighbours, p itself among them.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from cion_jax.evaluation.distances import cosine_distances, unit_rows
from cion_jax.evaluation.k_reciprocal import Neighbours, encode, expand_queries, find_neighbours, jaccard_row
from cion_jax.evaluation.ranking import DistancesOf

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
    k1, k2, lambda_ = settings
    units = unit_rows(np.concatenate([query, gallery]))
    nearest, farthest = find_neighbours(units, max(k1 + 1, k2))
    if farthest.min() <= _SAME:
        raise ValueError("the features of all images are equal, there is nothing to rank by; check model and weights")
    around = Neighbours(nearest, whole=k1 + 1, half=int(np.around(k1 / 2)) + 1)
    encoding = expand_queries(encode(units, around, scale=farthest), nearest, k2)
    by_column = sparse.csc_array(encoding[len(query) :])
    gallery_unit = units[len(query) :]

    def distances_of(rows: np.ndarray) -> np.ndarray:
        original = np.asarray(cosine_distances(units[rows], gallery_unit)) / farthest[rows, None]
        final = np.float32(lambda_) * original
        for row, number in enumerate(rows):
            final[row] += (1 - lambda_) * jaccard_row(encoding, number, by_column)
        return final

    return distances_of


def _check(settings: KReciprocal) -> None:
    if settings.k1 < 1 or settings.k2 < 1 or not 0 <= settings.lambda_ <= 1:
        raise ValueError(f"re-ranking with {settings}: k1 and k2 are at least 1 and lambda is between 0 and 1")
