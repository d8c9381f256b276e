"""Cross-video denoising (Eq. 7): links between groups inside a range that slides over all videos as one."""

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
    everything = len(groups.sums)
    reach = everything if half_width is None else min(half_width, everything)
    return close_pairs(groups, features, np.array([everything]), reach, sigma_drm, track)
