"""Cross-video denoising (Eq. 7): links between groups inside a range that slides over all videos as one."""

import numpy as np

from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.engine.distances import TIE
from cion_jax.correlation.engine.linking import gathered, near_pairs
from cion_jax.correlation.engine.sharding import Track
from cion_jax.correlation.engine.tiles import Windows
from cion_jax.runtime.arrays import RowArray


def link(
    groups: Groups,
    features: RowArray,
    half_width: int | None,
    sigma_drm: float,
    track: Track,
) -> np.ndarray:
    """Eq. 7: links between groups at most `half_width` places apart. Equals `reference.link`.

        LR(t_i, t_c) = mu(sigma_drm - dist(c_i, c_c))   for all t_i in SR_c \\ t_c,  SR_c = {t_i : |i - c| <= r_s}

        mu(0) = 1,   c_i [d] centroid of group i,   r_s = half_width,   dist = cosine distance

    Args:
        groups: The groups after Eq. 6, in sliding order.
        features: `[n, d]`, of their images.
        half_width: r_s, in groups; None compares every pair.
        sigma_drm: Cosine distance.
        track: Progress over the tiles of pairs.

    Returns:
        Pairs i < j `[links, 2]`.
    """
    count = len(groups.sums)
    windows = Windows.within(np.array([count]), count if half_width is None else min(half_width, count))
    near = near_pairs(groups, features, windows, np.array([count]), sigma_drm, track)
    return gathered(pairs[distances <= sigma_drm + TIE] for pairs, distances in near)


def link_added(
    groups: Groups,
    places: np.ndarray,
    features: RowArray,
    half_width: int | None,
    sigma_drm: float,
    track: Track,
) -> tuple[np.ndarray, int]:
    """Eq. 7 for the pairs that an earlier run did not compare; with its links, these are the links of `link`.

    Args:
        groups: Groups that the earlier run had, then added ones, in sliding order.
        places: `[old]`, the places of the former in the sliding order of the earlier run, ascending.
        features, half_width, sigma_drm, track: As for `link`.

    Returns:
        Pairs i < j `[links, 2]`, and the number of pairs compared.
    """
    rows, windows = pairs_to_compare(places, len(groups.sums), half_width)
    if not len(rows):
        return np.zeros((0, 2), np.int32), 0
    near = near_pairs(groups, features, windows, np.array([len(rows)]), sigma_drm, track, rows)
    links = gathered(pairs[distances <= sigma_drm + TIE] for pairs, distances in near)
    return links, int((windows.high - windows.low).sum(dtype=np.int64))


def pairs_to_compare(places: np.ndarray, groups: int, half_width: int | None) -> tuple[np.ndarray, Windows]:
    """The groups that some earlier group in sliding order has still to be compared with, and windows over the latter.

    Two old groups were compared if their old places are at most `half_width` apart. Where groups between them have
    been removed, others are as close now.

    Returns:
        Groups `[rows]`, ascending, and a window of earlier groups for each.
    """
    everywhere = groups + int(places.max(initial=0))
    reach = everywhere if half_width is None else min(half_width, everywhere)
    low = np.maximum(np.arange(groups) - reach, 0)
    high = np.arange(groups)
    high[: len(places)] = np.searchsorted(places, places - reach)
    rows = np.flatnonzero(low < high)
    bounds = low[rows], high[rows], np.full(len(rows), -1)
    return rows, Windows(*(bound.astype(np.int32) for bound in bounds))
