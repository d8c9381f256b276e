"""Thresholds for given features, without labels: from calibration, and low enough that links do not chain."""

import dataclasses

import numpy as np

from cion_jax.correlation import checks
from cion_jax.correlation.calibration import Calibration
from cion_jax.correlation.chaining import unchained_threshold
from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.engine.sharding import Track
from cion_jax.correlation.levels import sliding_order
from cion_jax.correlation.tracklet import denoise_tracklets
from cion_jax.runtime.arrays import RowArray
from cion_jax.runtime.progress import Progress, silent


@dataclasses.dataclass(frozen=True)
class Proposal:
    """Proposed thresholds.

    Attributes:
        sigma_cst, sigma_drm: The thresholds, cosine distances.
        rates: The false-link rate per comparison of either, by name.
        ceiling: The sigma_drm of calibration alone.
        support: Share of the pairs that closure joins at sigma_drm that are links themselves.
    """

    sigma_cst: float
    sigma_drm: float
    rates: dict[str, float]
    ceiling: float
    support: float


def propose(
    calibration: Calibration,
    features: RowArray,
    videos: np.ndarray,
    tracklets: np.ndarray,
    *,
    false_links: float = 0.1,
    half_width: int | str | None = 1000,
    progress: Progress = silent,
) -> Proposal:
    """Proposes both thresholds of `correlate`, for which the other arguments are.

    sigma_cst is that of `Calibration.propose`, and sigma_drm at most that; it is lowered until the tracklets that
    Eq. 4 leaves do not chain (`cion_jax.correlation.chaining.unchained_threshold`).

    Args:
        calibration: Of these features.
        features, videos, tracklets, half_width: As in `correlate`.
        false_links: Links to other people that a group may have on average, before closure.
        progress: Progress display.

    Raises:
        ValueError: No threshold keeps the false links this low, or links chain at every threshold.
    """
    sigmas = calibration.propose(false_links, half_width)

    def track(title: str, unit: str) -> Track:
        return lambda total: progress(title, total, unit)

    order, _ = sliding_order(videos, tracklets)
    kept, sums = denoise_tracklets(features, order, sigmas["sigma_cst"], track("single tracklets", "images"))
    groups, reach, ceiling = Groups(np.where(kept, order, -1), sums), checks.reach(half_width), sigmas["sigma_drm"]
    sigma_drm, support = unchained_threshold(groups, features, reach, ceiling, track("chaining", "tiles"))
    if sigma_drm <= 0:
        raise ValueError(
            f"links between tracklets chain at every sigma_drm up to {ceiling}: the features do not "
            "distinguish people; center and whiten them (cion_jax.features.adaptation), or take another extractor"
        )
    return Proposal(sigmas["sigma_cst"], sigma_drm, calibration.rates(false_links, half_width), ceiling, support)
