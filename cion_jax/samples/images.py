"""Image decoding and resizing."""

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
except ImportError:  # no wheel for this platform: PIL decodes the same pixels but takes 1.7 times as long
    simplejpeg = None

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]; used by all models here
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATION = "bilinear, antialiased"  # method of `resize`, recorded for users of exported features
# Errors of a single file; others, such as too many open files or out of memory, concern the whole system.
_FILE_ERRORS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EIO)
_PIL_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)


class UndecodableImage(ValueError):
    """An image file that is missing, broken or not an image."""


def load_image(path: str | os.PathLike) -> np.ndarray:
    """Reads an image file as `[height, width, 3]` uint8 RGB; raises `UndecodableImage` naming the file.

    Greyscale, palette, CMYK and transparent images are converted to RGB. Truncated files are rejected, not padded.
    """
    return decode_image(read_file(path), name=str(path))


def read_file(path: str | os.PathLike) -> bytes:
    """The encoded bytes of an image file.

    Raises:
        UndecodableImage: the file is missing, not permitted or on a bad disk sector; the message names it.
        OSError: a system-wide failure, such as too many open files.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        if error.errno not in _FILE_ERRORS:
            raise  # a system failure, not a bad image
        raise UndecodableImage(f"{path}: cannot be read ({error.strerror})") from error


def decode_image(data: bytes, *, name: str = "image") -> np.ndarray:
    """Decodes an encoded image as `load_image` does; `name` identifies it in error messages."""
    if simplejpeg is not None and data.startswith(b"\xff\xd8"):
        try:
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError:
            pass  # corrupt, or only a libjpeg warning: PIL distinguishes the two
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise UndecodableImage(f"{name}: not an image, or cut off at its very beginning") from error
    except _PIL_ERRORS as error:
        raise UndecodableImage(f"{name}: a broken image ({error})") from error


def resize(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resizes `[h, w, 3]` uint8 to `size = (height, width)`: bilinear with antialiasing, as in common ReID code."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
