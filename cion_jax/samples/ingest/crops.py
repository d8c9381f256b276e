"""Cropping people from frames and encoding the crops."""

import math

import numpy as np
import simplejpeg

QUALITY = 92  # JPEG quality, without chroma subsampling: crops are small, and are scaled and encoded only once
_NARROWEST = 4  # height-to-width ratio beyond which a crop is a sliver at the edge of the frame


class OtherScale(ValueError):
    """Raised for boxes in pixels of frames of another size."""


def cut(image: np.ndarray, box: np.ndarray, min_height: int) -> np.ndarray | None:
    """Crops `image` to a box (left, top, right, bottom), rounded outwards and clipped; None if too small.

    Raises:
        ValueError: A coordinate is not finite.
    """
    if not np.isfinite(box).all():
        raise ValueError(f"box {box.tolist()} is not finite")
    height, width = image.shape[:2]
    left, top = (max(0, math.floor(low)) for low in box[:2].tolist())
    right, bottom = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
    if bottom - top < min_height or (right - left) * _NARROWEST < min_height:
        return None
    return np.ascontiguousarray(image[top:bottom, left:right])


def outside(image: np.ndarray, boxes: np.ndarray) -> int:
    """Number of boxes `[n, 4]` (left, top, right, bottom) that have no pixel of `image` in them."""
    return int(((boxes[:, 2:] <= 0) | (boxes[:, :2] >= image.shape[1::-1])).any(axis=1).sum())


def check_scale(outside: int, boxes: int) -> None:
    """Refuses boxes most of which lie outside their frames, where trackers put only those of people who leave.

    Raises:
        OtherScale: More than half of the `boxes` are `outside`.
    """
    if 2 * outside > boxes:
        raise OtherScale(
            f"{outside} of {boxes} boxes lie outside their frames; they seem to have been made on larger frames, give "
            "those"
        )


def encode(crop: np.ndarray) -> bytes:
    """Encodes `[height, width, 3]` uint8 RGB as JPEG."""
    return simplejpeg.encode_jpeg(crop, quality=QUALITY, colorsubsampling="444")
