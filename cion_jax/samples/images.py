"""Decoding image files."""

import errno
import io
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

try:
    import simplejpeg
except ImportError:  # no wheel for this platform: PIL gives the same pixels in 1.7 times the time
    simplejpeg = None

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]; what all models here are trained with
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATION = "bilinear, antialiased"  # how `resize` does it, in words for those who use the features elsewhere
# What is wrong with one file; errors such as too many open files or no memory would come for any.
_OF_THE_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EIO)
_PIL_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)


class UndecodableImage(ValueError):
    """An image file that is missing, broken or not an image."""


def load_image(path: str | os.PathLike) -> np.ndarray:
    """Reads an image file as `[height, width, 3]` uint8 RGB; raises `UndecodableImage` naming the file.

    Grey, palette, CMYK and transparent images become RGB. Truncated files are refused rather than filled up.
    """
    return decode_image(read_file(path), name=str(path))


def read_file(path: str | os.PathLike) -> bytes:
    """An image file as it is, not decoded.

    Raises:
      UndecodableImage: it is not there, may not be read, or its part of the disk is broken; the file is named.
      OSError: the system cannot read files now, whichever.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        if error.errno not in _OF_THE_FILE:
            raise  # the system is in trouble, not this image
        raise UndecodableImage(f"{path}: cannot be read ({error.strerror})") from error


def decode_image(data: bytes, *, name: str = "image") -> np.ndarray:
    """Decodes an encoded image as `load_image` does; `name` is what an error calls it."""
    if simplejpeg is not None and data.startswith(b"\xff\xd8"):
        try:
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError:
            pass  # broken, or a mere warning of the JPEG library: PIL tells which
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise UndecodableImage(f"{name}: not an image, or cut off at its very beginning") from error
    except _PIL_ERRORS as error:
        raise UndecodableImage(f"{name}: a broken image ({error})") from error


def resize(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resizes `[h, w, 3]` uint8 to `size = (height, width)`: bilinear with antialiasing, as ReID tools do."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
