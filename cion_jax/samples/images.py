"""Decoding and resizing of images."""

import errno
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from cion_jax.runtime.file_kinds import other_kind_of_bytes
from cion_jax.samples.orientation import UPRIGHT, Orientation, displayed, exif_orientation

try:
    import simplejpeg
except ImportError:  # no wheel for this platform: PIL decodes the same pixels but takes 1.7 times as long
    simplejpeg = None

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]; used by all models here
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATION = "bilinear, antialiased"  # method of `resize`, recorded for users of exported features
# Errors of a single file; others, such as too many open files or out of memory, concern the whole system.
_FILE_ERRORS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EIO)
_JPEG, _APP1, _START_OF_SCAN = b"\xff\xd8", 0xE1, 0xDA  # APP1 holds EXIF or XMP metadata
_CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000: its markers SOC and SIZ
_INKS = ("CMYK", "YCCK")  # simplejpeg converts these to RGB by another formula than PIL
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF tags, and a value of the second
# PIL decodes a JPEG that has lost bytes without a word; simplejpeg reports what libjpeg warns of.
FINDS_DAMAGE = simplejpeg is not None


class UndecodableImage(ValueError):
    """An image file that is missing, broken or not an image."""


class DamagedImage(UndecodableImage):
    """A JPEG with bytes lost or overwritten inside: it can be decoded, but part of it is garbage."""


def load_image(path: str | os.PathLike) -> np.ndarray:
    """Reads an image file as `decode_image` decodes it; raises `UndecodableImage` naming the file."""
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
    except ValueError as error:  # no file can have this name
        raise UndecodableImage(f"{str(path)!r}: cannot be read ({error!s:.300})") from error


def decode_image(data: bytes, *, name: str = "image", strict: bool = False) -> np.ndarray:
    """Decodes an encoded image to `[height, width, 3]` uint8 RGB, oriented as viewers display it (EXIF, XMP).

    Greyscale, palette, CMYK and transparent images are converted to RGB; of more than 8 bits, the highest 8 are kept.
    An animation or a file of several pages gives its first image. Truncated files are rejected, not padded.

    Args:
        data: the contents of the file.
        name: identifies the image in error messages.
        strict: also refuse damaged JPEGs, as far as libjpeg notices: nearly always if hundreds of bytes are lost or
            zeroed, in about a third of the cases if it is a few. Needs simplejpeg (`FINDS_DAMAGE`).

    Raises:
        DamagedImage: with `strict`, a JPEG that libjpeg warns of.
        UndecodableImage: not an image, broken, larger than `PIL.Image` permits, or of numbers whose range from black
            to white is unknown.
    """
    warning = None
    if simplejpeg is not None and data.startswith(_JPEG):
        try:
            if (pixels := _decode_jpeg(data)) is not None:
                return pixels
        except ValueError as error:  # corrupt, too large, or only a libjpeg warning: PIL distinguishes these
            warning = error
    image = _decode_with_pil(data, name)
    if strict and warning is not None:
        raise DamagedImage(f"{name}: damaged inside, part of it is garbage ({warning}); copy it again") from warning
    return image


def _decode_jpeg(data: bytes) -> np.ndarray | None:
    """As `decode_image`, with `ValueError` for whatever libjpeg reports; None for the four inks, left to PIL."""
    assert simplejpeg is not None
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    if Image.MAX_IMAGE_PIXELS and int(height) * int(width) > 2 * Image.MAX_IMAGE_PIXELS:
        raise ValueError("too large")
    image = simplejpeg.decode_jpeg(data, colorspace="RGB")
    if colours in _INKS:
        return None
    return displayed(image, _jpeg_orientation(data)) if _has_metadata(data) else image


def _has_metadata(jpeg: bytes) -> bool:
    """True if the header has an APP1 segment, or is too unusual to tell. Faster than letting PIL parse every header."""
    place = 2
    while place + 4 <= len(jpeg) and jpeg[place] == 0xFF:
        marker = jpeg[place + 1]
        if marker == _START_OF_SCAN:
            return False
        if marker == _APP1:
            return True
        place += 1 if marker == 0xFF else 2 + int.from_bytes(jpeg[place + 2 : place + 4])  # 0xFF: a fill byte
    return True


def _jpeg_orientation(data: bytes) -> Orientation:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return exif_orientation(image)
    except (OSError, ValueError, SyntaxError):  # simplejpeg could decode it, hence only the metadata are damaged
        return UPRIGHT


def _decode_with_pil(data: bytes, name: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "JPEG2000" and not image.mode.startswith("I") and _jpeg_2000_bits(data) > 8:
                raise UndecodableImage(
                    f"{name}: JPEG 2000 in colour of more than 8 bits, whose white Pillow decodes as black; convert it"
                )
            pixels = _rgb(image, name)
            return displayed(pixels, exif_orientation(image))
    except (MemoryError, UndecodableImage):
        raise
    except UnidentifiedImageError as error:
        unknown = "not an image, cut off at its very beginning, or of a kind that Pillow cannot read"
        raise UndecodableImage(f"{name}: {other_kind_of_bytes(data, 'image') or unknown}") from error
    except Exception as error:  # the errors of Pillow's decoders have no common base class
        raise UndecodableImage(f"{name}: a broken image ({error!s:.300})") from error


def _jpeg_2000_bits(data: bytes) -> int:
    """Bits per value of the first component, from the segment SIZ (ITU-T T.800, A.5.1)."""
    return 1 + (data[data.index(_CODESTREAM) + 42] & 0x7F)


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    """Stored pixels as `[height, width, 3]` uint8. Pillow's own conversion clips more than 8 bits to white."""
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")  # PPM: scaled to 16 bits
    if not deep and image.mode not in ("I", "F"):
        return np.array(image.convert("RGB"))
    if not deep:
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
        raise UndecodableImage(
            f"{name}: {kind} values, of which it is unknown which is black and which is white; convert it to unsigned "
            "8 or 16 bits"
        )
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    grey = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    return np.repeat(grey[..., None], 3, axis=2)


def resize(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resizes `[h, w, 3]` uint8 to `size = (height, width)`: bilinear with antialiasing, as in common ReID code."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
