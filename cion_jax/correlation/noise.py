"""Noise n_S of a set of identities (Eq. 1-3)."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from cion_jax.correlation.checks import check_features, check_identities, check_threshold
from cion_jax.correlation.engine import rounding
from cion_jax.correlation.engine.centroids import Groups, Vectors
from cion_jax.correlation.engine.distances import TIE, add_rows, row_blocks
from cion_jax.correlation.engine.linking import pair_distances, settled_distances
from cion_jax.correlation.engine.sharding import Track
from cion_jax.correlation.engine.tiles import Windows, compare
from cion_jax.runtime.arrays import RowArray
from cion_jax.runtime.processes import all_gather
from cion_jax.runtime.progress import Progress, silent


@dataclasses.dataclass(frozen=True)
class Noise:
    """Noise of a set of identities.

    Attributes:
        total: n_S of Eq. 3.
        consistency, discrimination: The two sums of Eq. 3, each divided by M.
        identities: M, the number of identities present.
        standard_error: That of `discrimination` if it was estimated, 0 if every pair was compared.
        rows: Number of identities that were compared with all others: M, or fewer if `discrimination` was estimated.
    """

    total: float
    consistency: float
    discrimination: float
    identities: int
    standard_error: float
    rows: int


def noise(
    features: RowArray,
    identities: np.ndarray,
    *,
    sigma_cst: float,
    sigma_drm: float,
    most_rows: int | None = None,
    progress: Progress = silent,
) -> Noise:
    """Measures n_S of features grouped by identity. Equals `reference.noise`.

        n_k^cst     = mu(r_k - sigma_cst),      r_k = max_i dist(x_i, c_k)   over all images of k    (Eq. 1)
        n_{i,j}^drm = mu(sigma_drm - d_{i,j}),  d_{i,j} = dist(c_i, c_j)                             (Eq. 2)
        n_S         = (sum_k n_k^cst + sum_i sum_{j != i} n_{i,j}^drm) / M                           (Eq. 3)

        mu(0) = 1,   x_i [d] L2-normalised image feature,   c_k [d] mean of the x_i of identity k,
        k, i, j = 1 ... M identities,   dist = cosine distance

    The double sum counts each pair twice, as written. It costs M^2 products.

    Args:
        features: `[n, d]` float16 or float32.
        identities: `[n]` integers; rows with identity -1 are left out.
        sigma_cst, sigma_drm: Cosine distances in [0, 2].
        most_rows: If there are more identities than this, the double sum is estimated without bias from so many of
            them (drawn with a fixed seed), each compared with all others.
        progress: Progress display.

    Raises:
        ValueError: Invalid input, or no row has an identity.
    """
    check_threshold("sigma_cst", sigma_cst)
    check_threshold("sigma_drm", sigma_drm)
    check_identities(identities, len(features))
    check_features(features)
    labels = np.where(identities < 0, -1, np.unique(identities, return_inverse=True)[1]).astype(np.int32)
    labels[labels >= 0] -= labels[labels >= 0].min()
    groups = Groups(labels, _sums(features, labels))
    count = len(groups.sums)
    compared = count if most_rows is None else min(most_rows, count)

    def track(tiles: int) -> AbstractContextManager[Callable[[int], None]]:
        return progress("noise", tiles, "tiles")

    if compared == count:
        close, error = _discrimination(features, groups, sigma_drm, track), 0.0
    else:
        rows = np.sort(np.random.default_rng(0).choice(count, compared, replace=False))
        close, error = _sampled_discrimination(features, groups, rows, sigma_drm, track)
    scattered = np.count_nonzero(_scattered(features, groups, sigma_cst)) / count
    return Noise(scattered + close, scattered, close, count, error, compared)


def _sums(features: RowArray, labels: np.ndarray) -> np.ndarray:
    """Sums `[k, d]` of the unit features of each label; `labels` `[n]`, -1 left out."""
    sums = np.zeros((labels.max() + 1, features.shape[1]), np.float32)
    for rows, block in row_blocks(features):
        present = labels[rows] >= 0
        add_rows(sums, labels[rows][present], block[present])
    return sums


def _scattered(features: RowArray, groups: Groups, sigma_cst: float) -> np.ndarray:
    """Eq. 1: n_k^cst of every identity, `[k]` bool."""
    radii, centroids = np.zeros(len(groups.sums), np.float32), groups.centroids
    for rows, block in row_blocks(features):
        present = np.flatnonzero(groups.assigned[rows] >= 0)
        own = groups.assigned[rows][present]
        np.maximum.at(radii, own, pair_distances(Vectors.of_images(block), centroids, np.stack([present, own], 1)))
    scattered = radii >= sigma_cst
    slack = centroids.slack + rounding.image_slack(features.shape[1])
    exact = groups.exactly(features)
    for k in np.flatnonzero(np.abs(radii - sigma_cst) <= slack).tolist():
        images = exact.images_of(k)
        scattered[k] = exact.distances_to(images, groups.assigned[images]).max() >= sigma_cst - TIE
    return scattered


def _discrimination(features: RowArray, groups: Groups, sigma_drm: float, track: Track) -> float:
    """Discrimination noise: ordered pairs (i, j) with d_{i,j} <= sigma_drm, divided by M."""
    centroids, lengths = groups.centroids, np.array([len(groups.sums)])
    windows = Windows.within(lengths, len(groups.sums))
    counts = _close_counts(centroids, groups, features, windows, np.arange(len(groups.sums)), sigma_drm, track)
    return 2 * float(counts.sum()) / len(groups.sums)


def _sampled_discrimination(
    features: RowArray, groups: Groups, rows: np.ndarray, sigma_drm: float, track: Track
) -> tuple[float, float]:
    """Discrimination noise estimated from the pairs (i, j) with i in `rows`, and its standard error."""
    first, last = np.zeros(len(rows), np.int32), np.full(len(rows), len(groups.sums), np.int32)
    windows = Windows(first, last, rows.astype(np.int32))
    counts = _close_counts(groups.centroids, groups, features, windows, rows, sigma_drm, track)
    return float(counts.mean()), float(counts.std(ddof=1) / len(rows) ** 0.5)


def _close_counts(
    centroids: Vectors,
    groups: Groups,
    features: RowArray,
    windows: Windows,
    rows: np.ndarray,
    sigma_drm: float,
    track: Track,
) -> np.ndarray:
    """Number `[rows]` of identities within `sigma_drm` of each of the `rows`, inside its window.

    Pairs are counted a block at a time and not kept.
    """
    chosen = centroids if len(rows) == len(centroids) else centroids[rows]
    counts, exact = np.zeros(len(rows), np.int64), groups.exactly(features)
    for pairs in compare(chosen, centroids, windows, np.array([len(rows)]), sigma_drm, track):
        identities = np.stack([rows[pairs[:, 0]], pairs[:, 1]], 1)
        close = settled_distances(identities, centroids, exact, sigma_drm) <= sigma_drm + TIE
        counts += np.bincount(pairs[close, 0], minlength=len(rows))
    return all_gather(counts[None]).sum(0)
