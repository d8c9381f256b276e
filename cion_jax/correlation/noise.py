"""The noise of a set of identities (Eq. 1-3)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from cion_jax.correlation.checks import check_features, check_identities, check_threshold
from cion_jax.correlation.distances import add_rows, directions, distance, row_blocks
from cion_jax.correlation.tiles import count_close_pairs


@dataclasses.dataclass(frozen=True)
class Noise:
    """`total` is n_S of Eq. 3, `consistency` and `discrimination` its two sums, each already divided by M.

    `identities` is M, the number of identities present.
    """

    total: float
    consistency: float
    discrimination: float
    identities: int


def noise(features: np.ndarray, identities: np.ndarray, *, sigma_cst: float, sigma_drm: float) -> Noise:
    """Measures n_S of features `[n, d]` grouped by identities `[n]`; rows with identity -1 are left out.

        n_k^cst    = u(r_k - sigma_cst),     r_k = max_i dist(x_i, c_k)      over all images of k  (Eq. 1)
        n_{i,j}^drm = u(sigma_drm - d_{i,j}), d_{i,j} = dist(c_i, c_j)                              (Eq. 2)
        n_S        = (sum_k n_k^cst + sum_i sum_{j != i} n_{i,j}^drm) / M                          (Eq. 3)

    u(0) = 1; distances are cosine distances; c_k is the mean of the L2-normalised features of k. The double
    sum counts each pair twice, as written. Raises `ValueError` on bad input and where no row has an identity.
    """
    check_threshold("sigma_cst", sigma_cst)
    check_threshold("sigma_drm", sigma_drm)
    check_identities(identities, len(features))
    check_features(features)
    labels = np.where(identities < 0, -1, np.unique(identities, return_inverse=True)[1])
    labels -= labels[labels >= 0].min()
    centroids = directions(_identity_sums(features, labels))
    count = len(centroids)
    scattered = int((_radii(features, labels, centroids) >= np.float32(sigma_cst)).sum())
    close = 2 * count_close_pairs(centroids, np.array([count]), count, sigma_drm)
    return Noise((scattered + close) / count, scattered / count, close / count, count)


def _identity_sums(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    sums = np.zeros((labels.max() + 1, features.shape[1]), np.float32)
    for rows, block in row_blocks(features):
        present = labels[rows] >= 0
        add_rows(sums, labels[rows][present], block[present])
    return sums


def _radii(features: np.ndarray, labels: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """r_k of every identity `[k]`."""
    radii = np.zeros(len(centroids), np.float32)
    for rows, block in row_blocks(features):
        present = np.flatnonzero(labels[rows] >= 0)
        own = labels[rows][present]
        np.maximum.at(radii, own, np.asarray(_paired_distances(block[present], centroids[own])))
    return radii


@jax.jit
def _paired_distances(a: jax.Array, b: jax.Array) -> jax.Array:
    return distance(jnp.sum(a * b, axis=-1))
