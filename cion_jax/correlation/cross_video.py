"""Cross-video denoising (Eq. 7): the Sliding Range moves over all videos as one, and links what is close."""

import numpy as np

from cion_jax.correlation.distances import directions
from cion_jax.correlation.tiles import close_pairs


def link(sums: np.ndarray, half_width: int | None, sigma_drm: float) -> np.ndarray:
    """The pairs `[links, 2]` of groups with 0 < |i - j| <= half_width and dist(c_i, c_j) <= sigma_drm.

    `sums` `[groups, d]` are those of the unit features in each group that Eq. 6 left, in the order that the
    range slides over them. `half_width=None` compares every pair.
    """
    everything = len(sums)
    reach = everything if half_width is None else min(half_width, everything)
    pairs = close_pairs(directions(sums), np.array([everything]), reach, sigma_drm)
    return np.concatenate([np.zeros((0, 2), np.int32), *pairs])
