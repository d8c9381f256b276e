"""Arbitrary and damaged images and videos: pixels are what Pillow shows, and only errors of our own are raised."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cion_jax.samples import DamagedImage, UndecodableImage, decode_image
from cion_jax.samples.ingest.decoding import BrokenVideo, frame_rate, read_frames
from tests.fuzzing import SHORT, repeat
from tests.videos import scene, write_video

MODES = {
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "AVIF": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I;16B", "I", "F"),
    "JPEG2000": ("L", "LA", "RGB", "RGBA", "I;16"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "GIF": ("L", "P", "RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "I;16"),
    "TGA": ("1", "L", "LA", "P", "RGB", "RGBA"),
}
OPTIONS = {
    "JPEG": ({}, {"progressive": True}, {"quality": 100, "subsampling": 0}, {"quality": 30, "restart_marker_rows": 1}),
    "PNG": ({}, {"compress_level": 0}),
    "WEBP": ({}, {"lossless": True}),
    "TIFF": ({}, {"compression": "tiff_lzw"}, {"compression": "packbits"}, {"compression": "tiff_adobe_deflate"}),
    "JPEG2000": ({}, {"irreversible": True}),
    "TGA": ({}, {"compression": "tga_rle"}),
}
ORIENTATION = 0x0112  # EXIF tag


@st.composite
def encoded_images(draw) -> bytes:
    format = draw(st.sampled_from(sorted(MODES)))
    mode = draw(st.sampled_from(MODES[format]))
    width, height, seed = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(0, 2**32 - 1))
    values = np.random.default_rng(seed).integers(0, 2**16, (height, width, 4), np.uint16)
    if draw(st.booleans()):  # smooth, as photographs
        values = np.sort(np.sort(values, axis=0), axis=1)
    options = draw(st.sampled_from(OPTIONS.get(format, ({},))))
    if format not in ("BMP", "PPM", "TGA"):
        exif = Image.Exif()
        exif[ORIENTATION] = draw(st.integers(0, 10))
        options = options | {"exif": exif}
    if mode == "P" and draw(st.booleans()):
        options = options | {"transparency": 0}
    written = io.BytesIO()
    try:
        _image(values, mode).save(written, format, **options)
    except (OSError, RuntimeError):  # not every compression takes every mode
        reject()
    return written.getvalue()


def _image(values: np.ndarray, mode: str) -> Image.Image:
    deep = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}
    if mode in deep:
        data = values[..., 0].astype(deep[mode]).tobytes()
        return Image.frombytes(mode, values.shape[1::-1], data)
    colour = Image.fromarray((values >> 8).astype(np.uint8)[..., :3])
    alpha = Image.fromarray((values[..., 3] >> 8).astype(np.uint8))
    if mode in ("LA", "RGBA"):
        image = colour.convert(mode[:-1])
        image.putalpha(alpha)
        return image
    return Image.merge("LAB", colour.split()) if mode == "LAB" else colour.convert(mode)


@st.composite
def damage(draw, data: bytes) -> bytes:
    """`data` with up to four changes: bytes overwritten, lost or inserted, or the end cut off."""
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        # most of the structure of a file is at its beginning
        start = start if draw(st.booleans()) else min(start, draw(st.integers(0, 64)))
        length = draw(st.sampled_from([1, 2, 4, 50, len(data)]))
        new = draw(st.one_of(st.binary(max_size=4), st.sampled_from([bytes(50), b"\xff" * 4, b"\x7f\xff\xff\xff"])))
        data = data[:start] + new + data[start + length :]
    return data


def as_pillow_shows(data: bytes) -> np.ndarray | None:
    """The displayed pixels, `[height, width, 3]` uint8; None if they have no known range."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        if (
            image.format == "JPEG2000"
            and image.mode != "I;16"
            and max(data[data.index(b"\xff\x4f") + 42 :][:1]) & 127 > 7
        ):
            return None  # Pillow decodes white as black
        try:
            shown = ImageOps.exif_transpose(image)
        except Exception:  # damaged metadata: the pixels are there
            shown = image
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
            tags = getattr(image, "tag_v2", {})
            values = np.asarray(shown).astype(np.int64) * 2 ** (16 - tags.get(258, (16,))[0]) // 256
            return np.stack([255 - values if tags.get(262) == 0 else values] * 3, axis=2)
        return None if image.mode in ("I", "F") else np.asarray(shown.convert("RGB"))


def check(data: bytes) -> None:
    try:
        expected = as_pillow_shows(data)
    except Exception:  # whatever Pillow's decoders raise
        expected = None
    try:
        got = decode_image(data, name="image")
    except UndecodableImage:
        assert expected is None, "refused, but Pillow shows it"
        with pytest.raises(UndecodableImage):
            decode_image(data, strict=True)
        return
    assert got.dtype == np.uint8 and got.ndim == 3 and got.shape[2] == 3
    assert expected is not None, "decoded, but Pillow refuses it"
    np.testing.assert_array_equal(got, expected)
    try:
        np.testing.assert_array_equal(decode_image(data, strict=True), got)
    except DamagedImage:
        assert data[:2] == b"\xff\xd8"


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    """A damaged header may claim any size; warnings are Pillow's, of damaged metadata."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_whole_images(fuzz_seconds):
    @SHORT
    @given(encoded_images())
    def whole(data):
        if as_pillow_shows(data) is not None:
            decode_image(data, strict=True)
        check(data)

    repeat(whole, fuzz_seconds)


def test_damaged_images(fuzz_seconds):
    @SHORT
    @given(st.one_of(st.binary(max_size=100), encoded_images().flatmap(damage)))
    def damaged(data):
        check(data)

    repeat(damaged, fuzz_seconds)


def test_damaged_videos(tmp_path, fuzz_seconds):
    for ending in ("mp4", "mkv"):
        write_video(tmp_path / f"whole.{ending}", scene(3))
    whole = {ending: (tmp_path / f"whole.{ending}").read_bytes() for ending in ("mp4", "mkv")}
    path = tmp_path / "video.mp4"

    @SHORT
    @given(st.sampled_from(sorted(whole)).flatmap(lambda ending: damage(whole[ending])))
    def damaged(data):
        path.write_bytes(data)
        try:
            assert frame_rate(path) > 0
            for frame in read_frames(path):
                image = frame.image()
                assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        except BrokenVideo:
            return

    repeat(damaged, fuzz_seconds)
