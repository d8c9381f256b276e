"""Cross-video denoising (Eq. 7): the Sliding Range moves over all videos as one, and links what is close."""

import numpy as np

from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.engine.linking import close_pairs
from cion_jax.correlation.engine.sharding import Track


def link(
    groups: Groups,
    features: np.ndarray,
    half_width: int | None,
    sigma_drm: float,
    track: Track,
) -> np.ndarray:
    """The pairs `[links, 2]` of groups with 0 < |i - j| <= half_width and dist(c_i, c_j) <= sigma_drm.

    `groups` are those that Eq. 6 left, in the order that the range slides over them, and `features` `[n, d]` their
    images. `half_width=None` compares every pair.
    """
    everything = len(groups.sums)
    reach = everything if half_width is None else min(half_width, everything)
    return close_pairs(groups, features, np.array([everything]), reach, sigma_drm, track)
