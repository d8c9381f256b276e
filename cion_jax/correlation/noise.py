"""The noise of a set of identities (Eq. 1-3)."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from cion_jax.correlation.checks import check_features, check_identities, check_threshold
from cion_jax.correlation.engine import rounding
from cion_jax.correlation.engine.centroids import Groups, Vectors
from cion_jax.correlation.engine.distances import TIE, add_rows, row_blocks
from cion_jax.correlation.engine.linking import are_close, pair_distances
from cion_jax.correlation.engine.sharding import Track
from cion_jax.correlation.engine.tiles import Windows, compare
from cion_jax.runtime.processes import all_gather
from cion_jax.runtime.progress import Progress, silent


@dataclasses.dataclass(frozen=True)
class Noise:
    """`total` is n_S of Eq. 3, `consistency` and `discrimination` its two sums, each already divided by M.

    `identities` is M, the number of identities present. `standard_error` is that of `discrimination` where it was
    estimated, and 0 where every pair was looked at.
    """

    total: float
    consistency: float
    discrimination: float
    identities: int
    standard_error: float = 0.0


def noise(
    features: np.ndarray,
    identities: np.ndarray,
    *,
    sigma_cst: float,
    sigma_drm: float,
    most_rows: int | None = None,
    progress: Progress = silent,
) -> Noise:
    """Measures n_S of features `[n, d]` grouped by identities `[n]`; rows with identity -1 are left out.

        n_k^cst    = u(r_k - sigma_cst),     r_k = max_i dist(x_i, c_k)      over all images of k  (Eq. 1)
        n_{i,j}^drm = u(sigma_drm - d_{i,j}), d_{i,j} = dist(c_i, c_j)                              (Eq. 2)
        n_S        = (sum_k n_k^cst + sum_i sum_{j != i} n_{i,j}^drm) / M                          (Eq. 3)

    u(0) = 1; distances are cosine distances; c_k is the mean of the L2-normalised features of k. The double
    sum counts each pair twice, as written. It costs M^2 products: with `most_rows`, and more identities than that,
    it is estimated, without bias, from so many of them (drawn once and for all), each compared with all others.

    Raises `ValueError` on bad input and where no row has an identity.
    """
    check_threshold("sigma_cst", sigma_cst)
    check_threshold("sigma_drm", sigma_drm)
    check_identities(identities, len(features))
    check_features(features)
    labels = np.where(identities < 0, -1, np.unique(identities, return_inverse=True)[1])
    labels -= labels[labels >= 0].min()
    groups = Groups(labels, _sums(features, labels))
    count = len(groups.sums)

    def track(tiles: int) -> AbstractContextManager[Callable[[int], None]]:
        return progress("noise", tiles, "tiles")

    if most_rows is None or most_rows >= count:
        close, error = _close_to_any(features, groups, sigma_drm, track), 0.0
    else:
        rows = np.sort(np.random.default_rng(0).choice(count, most_rows, replace=False))
        close, error = _close_to_some(features, groups, rows, sigma_drm, track)
    scattered = np.count_nonzero(_scattered(features, groups, sigma_cst)) / count
    return Noise(scattered + close, scattered, close, count, error)


def _sums(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    sums = np.zeros((labels.max() + 1, features.shape[1]), np.float32)
    for rows, block in row_blocks(features):
        present = labels[rows] >= 0
        add_rows(sums, labels[rows][present], block[present])
    return sums


def _scattered(features: np.ndarray, groups: Groups, sigma_cst: float) -> np.ndarray:
    """n_k^cst of every identity `[k]`."""
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


def _close_to_any(features: np.ndarray, groups: Groups, sigma_drm: float, track: Track) -> float:
    """Pairs at most `sigma_drm` apart, counted both ways, per identity."""
    centroids, lengths = groups.centroids, np.array([len(groups.sums)])
    windows = Windows.within(lengths, len(groups.sums))
    first = _counted(centroids, groups, features, windows, np.arange(len(groups.sums)), sigma_drm, track)
    return 2 * float(first.sum()) / len(groups.sums)


def _close_to_some(
    features: np.ndarray, groups: Groups, rows: np.ndarray, sigma_drm: float, track: Track
) -> tuple[float, float]:
    """The same, estimated from what the identities in `rows` are close to; and the standard error."""
    first, last = np.zeros(len(rows), np.int32), np.full(len(rows), len(groups.sums), np.int32)
    windows = Windows(first, last, rows.astype(np.int32))
    close = _counted(groups.centroids, groups, features, windows, rows, sigma_drm, track)
    return float(close.mean()), float(close.std(ddof=1) / len(rows) ** 0.5)


def _counted(
    centroids: Vectors,
    groups: Groups,
    features: np.ndarray,
    windows: Windows,
    rows: np.ndarray,
    sigma_drm: float,
    track: Track,
) -> np.ndarray:
    """Number of identities in its window that each of the `rows` is close to. Links are counted, not stored."""
    chosen = centroids if len(rows) == len(centroids) else centroids[rows]
    counts = np.zeros(len(rows), np.int64)
    for pairs in compare(chosen, centroids, windows, np.array([len(rows)]), sigma_drm, track):
        identities = np.stack([rows[pairs[:, 0]], pairs[:, 1]], 1)
        close = are_close(identities, centroids, groups, features, sigma_drm)
        counts += np.bincount(pairs[close, 0], minlength=len(rows))
    return all_gather(counts[None]).sum(0)
