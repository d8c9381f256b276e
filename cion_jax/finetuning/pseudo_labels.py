"""Pseudo-labels of unlabelled images: DBSCAN on the k-reciprocal Jaccard distances of their features."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.cluster import DBSCAN

from cion_jax.correlation.scoring import PairwiseScores, pairwise_scores
from cion_jax.evaluation.distances import unit_rows
from cion_jax.evaluation.k_reciprocal import Neighbours, encode, expand_queries, find_neighbours, jaccard_row

# V_i is a softmax of -|f_i - f_j|^2 = (cosine - 1) / 0.5 for unit features
_SCALE = 0.5
_ROWS_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class ClusterSettings:
    """Settings of the clustering; the defaults are Cluster-Contrast's for Market-1501 (`eps` 0.7 for MSMT17).

    Attributes:
        k1: neighbours that are compared.
        k2: neighbours that an encoding is averaged over.
        eps: largest Jaccard distance of neighbours in DBSCAN.
        min_samples: neighbours that make an image a core of its cluster, itself among them.
    """

    k1: int = 30
    k2: int = 6
    eps: float = 0.6
    min_samples: int = 4

    def __post_init__(self):
        if min(self.k1, self.k2, self.min_samples) < 1 or not 0 < self.eps < 1:
            raise ValueError(f"{self}: k1, k2 and min_samples are at least 1, and eps is between 0 and 1")


class Clustering(NamedTuple):
    """Labels `[n]` from 0, -1 for images in no cluster, and their agreement with the truth where it is known."""

    labels: np.ndarray
    scores: PairwiseScores | None

    @property
    def clusters(self) -> int:
        return int(self.labels.max(initial=-1)) + 1

    @property
    def outliers(self) -> int:
        return int(np.count_nonzero(self.labels < 0))


def cluster(features: np.ndarray, settings: ClusterSettings, truth: np.ndarray | None = None) -> Clustering:
    """Clusters features `[n, dim]`; `truth` `[n]` are the true identities, which only score the result."""
    distances = jaccard_distances(features, k1=settings.k1, k2=settings.k2, largest=settings.eps)
    labels = DBSCAN(eps=settings.eps, min_samples=settings.min_samples, metric="precomputed").fit_predict(distances)
    return Clustering(labels, None if truth is None else pairwise_scores(labels, truth))


def jaccard_distances(features: np.ndarray, *, k1: int, k2: int, largest: float) -> sparse.csr_array:
    """Jaccard distances of k-reciprocal encodings, up to `largest`, as a sparse matrix.

    V is that of `cion_jax.evaluation.k_reciprocal`, a softmax of the negative squared distances of unit features,
    averaged over the `k2` nearest. R* takes `k1` and half of it, rounded half to even, + 1 neighbours, the image itself
    among them: one fewer than in re-ranking, as the released Cluster-Contrast has it. With S = sum_k min(V_ik, V_jk),

        d_ij = max(0, 1 - S / (2 - S))

    Costs n^2 dim multiply-adds, and memory for two copies of the features plus a few hundred numbers per image.

    Args:
        features: `[n, dim]`, normalised here.
        k1: neighbours that are compared.
        k2: neighbours that V is averaged over.
        largest: distances above it are left out, which DBSCAN reads as infinite.

    Returns:
        float32 `[n, n]`; a distance of 0 is stored.
    """
    everyone = unit_rows(features)
    nearest, _ = find_neighbours(everyone, max(k1, k2))
    around = Neighbours(nearest, whole=k1, half=int(np.around(k1 / 2)) + 1)
    scale = np.full(len(features), _SCALE, np.float32)
    encoding = expand_queries(encode(everyone, around, scale=scale), nearest, k2)
    by_column = sparse.csc_array(encoding)

    def rows(start: int) -> list[tuple[np.ndarray, np.ndarray]]:
        block = range(start, min(start + _ROWS_AT_ONCE, len(features)))
        return [_near(jaccard_row(encoding, row, by_column), largest) for row in block]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        near = [row for part in pool.map(rows, range(0, len(features), _ROWS_AT_ONCE)) for row in part]
    ends = np.cumsum([0] + [len(columns) for columns, _ in near])
    columns, distances = (np.concatenate(parts) for parts in zip(*near))
    return sparse.csr_array((distances, columns, ends), shape=encoding.shape)


def _near(distances: np.ndarray, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the distances of a row that are at most `largest`, and these."""
    distances = np.maximum(distances, 0).astype(np.float32)
    columns = np.flatnonzero(distances <= largest).astype(np.int32)
    return columns, distances[columns]
