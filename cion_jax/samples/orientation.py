"""Orientation of images and video frames: stored pixels are turned to how viewers and players display them."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

_QUARTER_TURN = 0.01  # a display matrix may be off by this fraction, through rounding


class Orientation(NamedTuple):
    """The step from stored to displayed pixels: rows and columns are swapped first, then each may be reversed."""

    transposed: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False


UPRIGHT = Orientation()
# Values of the EXIF tag Orientation (CIPA DC-008, 4.6.5).
_EXIF = {
    2: Orientation(columns_reversed=True),
    3: Orientation(rows_reversed=True, columns_reversed=True),
    4: Orientation(rows_reversed=True),
    5: Orientation(transposed=True),
    6: Orientation(transposed=True, columns_reversed=True),
    7: Orientation(transposed=True, rows_reversed=True, columns_reversed=True),
    8: Orientation(transposed=True, rows_reversed=True),
}


def displayed(image: np.ndarray, orientation: Orientation) -> np.ndarray:
    """Turns stored pixels `[height, width, channels]`; an `UPRIGHT` image is returned as it is."""
    if orientation == UPRIGHT:
        return image
    if orientation.transposed:
        image = image.swapaxes(0, 1)
    rows, columns = (slice(None, None, -1 if reverse else 1) for reverse in orientation[1:])
    return np.ascontiguousarray(image[rows, columns])


def exif_orientation(image: Image.Image) -> Orientation:
    """The orientation that an image's EXIF or XMP metadata give; damaged metadata are ignored, as by viewers.

    Load the pixels first: PNG may have its metadata behind them, and Pillow turns a TIFF while it loads it.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, struct.error):
        return UPRIGHT
    return _EXIF.get(value, UPRIGHT) if isinstance(value, int) else UPRIGHT


def matrix_orientation(matrix: Sequence[int]) -> Orientation:
    """The orientation that a video's display matrix (ISO/IEC 14496-12, 6.2.2) stands for.

    Args:
        matrix: a, b, u, c, d, v, x, y, w: the pixel (p, q) is displayed at (a p + c q + x, b p + d q + y) / w.

    Raises:
        ValueError: a rotation that is no multiple of 90 degrees.
    """
    a, b, _, c, d, *_ = (float(value) for value in matrix)
    straight, crossed = max(abs(a), abs(d)), max(abs(b), abs(c))
    if min(straight, crossed) > _QUARTER_TURN * max(straight, crossed):
        raise ValueError("its frames are displayed at an angle that is no multiple of 90 degrees; rotate the video")
    if crossed > straight:
        return Orientation(transposed=True, rows_reversed=b < 0, columns_reversed=c < 0)
    return Orientation(rows_reversed=d < 0, columns_reversed=a < 0)
