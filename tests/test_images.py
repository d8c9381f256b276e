"""Decoded images are what viewers show: orientation, depth, damage; and what is no image is named."""

import io
import re
import struct
import zlib

import cv2
import lmdb
import numpy as np
import pytest
from PIL import Image, ImageOps

from cion_jax.samples import DamagedImage, UndecodableImage, decode_image, load_batches, open_images
from cion_jax.samples import images as decoding
from cion_jax.samples.stores.packed import pack

ORIENTATION = 0x0112  # EXIF tag


@pytest.fixture(params=["simplejpeg", "PIL"])
def decoder(request, monkeypatch):
    """Both decoders of JPEGs."""
    if request.param == "PIL":
        monkeypatch.setattr(decoding, "simplejpeg", None)


def picture(height: int = 48, width: int = 32) -> Image.Image:
    """Blocks of 16 x 16 pixels in different colours: no two orientations look the same."""
    colours = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return Image.fromarray(colours.repeat(16, axis=0).repeat(16, axis=1))


def encoded(image: Image.Image, format: str, **options) -> bytes:
    written = io.BytesIO()
    image.save(written, format, **options)
    return written.getvalue()


def as_displayed(data: bytes) -> np.ndarray:
    """Pillow's own view of an image: the independent oracle for orientation."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)


# Orientation


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_images_are_oriented_as_displayed(decoder, format, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation  # 0 and 9 mean nothing
    data = encoded(picture(), format, exif=exif, **({"quality": 95} if format in ("JPEG", "WEBP") else {}))
    expected = as_displayed(data)
    assert expected.shape == ((32, 48, 3) if 5 <= orientation <= 8 else (48, 32, 3))
    np.testing.assert_array_equal(decode_image(data), expected)


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (2 + len(content)).to_bytes(2) + content


def exif_segment(orientation: int) -> bytes:
    """The smallest EXIF metadata: a big-endian TIFF header, one directory with one entry (CIPA DC-008)."""
    entry = struct.pack(">HHIHH", ORIENTATION, 3, 1, orientation, 0)
    return segment(0xE1, b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4))


XMP = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="%d"/>'


@pytest.mark.parametrize(
    ("segments", "turned"),
    [
        (exif_segment(6), True),
        (segment(0xE1, XMP % 6), True),
        (segment(0xE2, b"ICC_PROFILE\0\1\1\xff\xda" + bytes(40)) + exif_segment(6), True),  # looks like the end
        (b"\xff\xff" + exif_segment(8), True),  # a fill byte
        (segment(0xE1, b"unknown") + exif_segment(5), True),
        (exif_segment(1) + segment(0xE1, XMP % 6), False),  # EXIF comes first
        (segment(0xEC, b"Exif\0\0 not in APP1"), False),
        (segment(0xE1, b"Exif\0\0broken"), False),  # the pixels are there
    ],
)
def test_metadata_are_found_anywhere_in_the_header_of_a_jpeg(decoder, segments, turned):
    plain = encoded(picture(), "JPEG")
    data = plain[:2] + segments + plain[2:]
    got = decode_image(data)
    np.testing.assert_array_equal(got, as_displayed(data))
    assert got.shape == ((32, 48, 3) if turned else (48, 32, 3))


def test_png_metadata_may_follow_the_pixels():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encoded(picture(), "PNG", exif=exif)
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4])
    last = data.index(b"IEND") - 4
    moved = data[:start] + data[end:last] + data[start:end] + data[last:]
    np.testing.assert_array_equal(decode_image(moved), as_displayed(data))


def test_damaged_metadata_do_not_hide_the_pixels():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encoded(picture(), "WEBP", lossless=True, exif=exif)
    assert data.count(b"MM\0*") == 1  # the beginning of the metadata
    got = decode_image(data.replace(b"MM\0*", bytes(4)))
    np.testing.assert_array_equal(got, np.asarray(picture()))


def test_every_store_gives_displayed_pixels(tmp_path):
    plain = encoded(picture(), "JPEG")
    data = plain[:2] + exif_segment(6) + plain[2:]
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.jpg").write_bytes(data)
    pack(["1.jpg"], tmp_path / "images", tmp_path / "store")
    with lmdb.open(str(tmp_path / "lmdb")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"1.jpg", data)
    for root in (tmp_path / "images", tmp_path / "store", tmp_path / "lmdb"):
        np.testing.assert_array_equal(open_images(root).load("1.jpg"), as_displayed(data))
    (batch,) = load_batches([tmp_path / "images/1.jpg"], (32, 48), 1)  # of queries, and of benchmarks
    np.testing.assert_array_equal(batch.images[0], as_displayed(data))


def test_the_colours_of_four_inks_are_those_of_pillow(decoder):
    """simplejpeg converts them by another formula."""
    inks = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    data = encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)
    np.testing.assert_array_equal(decode_image(data, strict=True), as_displayed(data))


# Depth

RAMP = np.linspace(0, 65535, 48 * 32).round().astype(np.uint16).reshape(48, 32)


def tiff(values: np.ndarray, bits: int, photometric: int = 1, sample_format: int = 1, order: str = "<") -> bytes:
    """An uncompressed greyscale TIFF of one strip (TIFF 6.0). photometric 0: white is zero."""
    height, width = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    if bits == 12:  # two values in three bytes
        pairs = values.reshape(-1, 2).tolist()
        data = b"".join(((first << 12) | second).to_bytes(3) for first, second in pairs)
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height}
    tags |= {279: len(data), 339: sample_format}
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return header + data + struct.pack(order + "H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(Image.fromarray(RAMP), "PNG"), RAMP / 257),
        (encoded(Image.fromarray(RAMP), "TIFF"), RAMP / 257),
        (encoded(Image.fromarray(RAMP), "JPEG2000"), RAMP / 257),
        (encoded(Image.fromarray(RAMP), "PPM"), RAMP / 257),
        (b"P5 32 48 1023\n" + (RAMP >> 6).astype(">u2").tobytes(), RAMP / 257),
        (tiff(RAMP, 16, order=">"), RAMP / 257),
        (tiff(RAMP, 16, photometric=0), 255 - RAMP / 257),
        (tiff(RAMP >> 4, 12), RAMP / 257),
        (tiff((RAMP >> 8).astype(np.uint8), 8, photometric=0), 255 - RAMP / 257),
    ],
)
def test_deep_greyscale_is_scaled_not_clipped(data, expected):
    got = decode_image(data)
    assert got.shape == (48, 32, 3) and (got == got[..., :1]).all()
    assert np.abs(got[..., 0] - expected).max() < 1.3


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (tiff(RAMP.astype(np.int32), 32, sample_format=2), "signed or 32-bit values"),
        (tiff(RAMP.astype(np.uint32), 32), "signed or 32-bit values"),
        (tiff(RAMP.astype(np.int16), 16, sample_format=2), "signed or 32-bit values"),
        (tiff((RAMP / 65535).astype(np.float32), 32, sample_format=3), "floating-point values"),
        (b"Pf 2 2 -1.0\n" + bytes(16), "floating-point values"),
    ],
)
def test_values_without_a_known_range_are_refused(data, kind):
    with pytest.raises(UndecodableImage, match=f"a.tif: {kind}, .* unknown which is black .*; convert it to"):
        decode_image(data, name="a.tif")


@pytest.mark.parametrize("depth", [8, 12, 16])
def test_deep_jpeg_2000_in_colour_is_refused(depth):
    """Pillow 13 rounds its highest values to 256, which it stores as 0."""
    colour = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2) >> (16 - depth)
    data = cv2.imencode(".jp2", colour.astype(np.uint8 if depth == 8 else np.uint16))[1].tobytes()
    place = data.index(b"\xff\x4f\xff\x51") + 42
    for component in range(3):  # OpenCV calls 12 bits 16
        data = data[: place + 3 * component] + bytes([depth - 1]) + data[place + 3 * component + 1 :]
    if depth == 8:
        np.testing.assert_array_equal(decode_image(data), colour[..., ::-1])
        return
    with pytest.raises(UndecodableImage, match=r"a\.jp2: JPEG 2000 in colour of more than 8 bits, .*; convert it"):
        decode_image(data, name="a.jp2")


def test_deep_colour_keeps_its_high_bytes():
    colour = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colour)  # PNG with filter 0

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)

    header = struct.pack(">IIBBBBB", 32, 48, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode_image(data), colour >> 8)


# Damage


def damaged(data: bytes, kind: str, seed: int) -> bytes:
    """`data` with 600 bytes of its scan zeroed or lost."""
    random = np.random.default_rng(seed)
    scan = data.index(b"\xff\xda") + 14
    place, count = int(random.integers(scan, len(data) - 1000)), 600  # libjpeg overlooks most damage of a few bytes
    return data[:place] + (bytes(count) if kind == "zeroed" else b"") + data[place + count :]


@pytest.mark.parametrize("kind", ["zeroed", "lost"])
def test_damage_inside_a_jpeg_is_found_if_asked_for(kind):
    texture = np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)
    whole = encoded(Image.fromarray(texture).resize((128, 256), Image.Resampling.BICUBIC), "JPEG", quality=90)
    np.testing.assert_array_equal(decode_image(whole, strict=True), decode_image(whole))
    found = []
    for seed in range(40):
        data = damaged(whole, kind, seed)
        assert decode_image(data).shape == (256, 128, 3)
        try:
            decode_image(data, name="a.jpg", strict=True)
        except DamagedImage as error:
            found.append(str(error))
    assert len(found) >= 38
    assert re.fullmatch(r"a\.jpg: damaged inside, part of it is garbage \(.*\); copy it again", found[0])


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "optimize": True}])
def test_whole_jpegs_of_any_kind_are_not_called_damaged(mode, options):
    decode_image(encoded(picture().convert(mode), "JPEG", **options) + b"bytes behind the end", strict=True)


# Other files and names


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"<!DOCTYPE html><html>Quota exceeded", "the file is a web page .*; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "the file is a git-lfs pointer, .*; run `git lfs pull`"),
        (b"", r"the file is empty \(0 bytes\); copy or"),
    ],
)
def test_files_that_are_something_else_are_named(data, kind):
    with pytest.raises(UndecodableImage, match=f"^a.jpg: {kind}"):
        decode_image(data, name="a.jpg")


def test_a_small_file_that_claims_to_be_huge_is_refused(decoder):
    data = encoded(picture(), "JPEG")
    size = data.index(b"\xff\xc0") + 5
    with pytest.raises(UndecodableImage, match="exceeds limit"):
        decode_image(data[:size] + b"\xff\x00\xff\x00" + data[size + 4 :])


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "a\0.jpg"])
def test_names_that_no_file_can_have_are_missing_images(tmp_path, name):
    images = open_images(tmp_path)
    assert images.missing([name]).tolist() == [True]
    with pytest.raises(UndecodableImage, match="cannot be read"):
        images.load(name)
