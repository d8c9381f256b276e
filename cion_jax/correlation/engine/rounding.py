"""Bounds on the rounding error of distances in low precision.

A sum of m products in precision u, in whatever order, is off by at most m u times the sum of their magnitudes
(Higham, "Accuracy and Stability of Numerical Algorithms", Sec. 3.1, to first order in u); for unit vectors of
dimension d that is d u. The bounds are worst cases: typical errors are tens of times smaller.
"""

import numpy as np

FLOAT32 = 2.0**-24
BFLOAT16 = 2.0**-9


def unit_error(dim: int) -> float:
    """Relative error of a vector normalised in float32: the norm's sum of squares, root, division."""
    return (dim / 2 + 3) * FLOAT32


def product_error(dim: int) -> float:
    """Error of the product of two images that were normalised in float32."""
    return 2 * unit_error(dim) + dim * FLOAT32


def image_slack(dim: int) -> float:
    """Contribution of an image, normalised in float32, to the error of its distance to another vector."""
    return unit_error(dim) + (dim / 2 + 4) * FLOAT32


def centroid_slack(counts: np.ndarray, lengths: np.ndarray, dim: int) -> np.ndarray:
    """Contribution of each centroid, `[k]` float32, to the error of the distance between two.

    `counts` `[k]` images, normalised and then summed in float32, made sums of `lengths` `[k]`: the less they
    agree, the shorter the sum, and the more its direction is off. Half the error of the product is each
    centroid's share.
    """
    per_image = unit_error(dim) + (counts + 2) * FLOAT32
    spread = counts / np.maximum(lengths, np.finfo(np.float32).tiny)
    return (spread * per_image + image_slack(dim)).astype(np.float32)


def bfloat16_error() -> float:
    """Additional error of the product of two unit vectors when both are rounded to bfloat16."""
    return 2 * BFLOAT16 + BFLOAT16**2
