"""Cameras: viewpoint, background, occluders and colour response."""

import colorsys
import dataclasses
import functools

import numpy as np

from cion_jax.street import raster
from cion_jax.street.config import StreetConfig
from cion_jax.street.randomness import Stream, generator

PLATE_LENGTH = 6  # length of the street that a camera sees, in crop heights; it repeats beyond that


@dataclasses.dataclass(frozen=True)
class Occluder:
    """An object between the people and the camera. Lengths are in crop heights."""

    x: float  # centre, along the plate
    top: float  # upper edge, measured down from the top of the crop
    half_width: float
    colour: np.ndarray  # [3]


@dataclasses.dataclass(frozen=True, eq=False)
class Camera:
    """A fixed camera, its view of the street and its colour response."""

    view: float  # angle between the street and the line of sight, in radians
    pitch: float  # downward tilt, in radians
    light: float  # direction of the light, in [-1, 1]: negative from the left
    gain: np.ndarray  # [3]: colour cast times exposure
    contrast: float
    tone: float  # brightens (positive) or darkens the midtones
    blur: float  # in [0, 1]
    noise: float  # standard deviation
    plate: np.ndarray  # [3, rows, around + crop width]: the empty street, with its first columns repeated at the end
    around: int  # period of the plate, in columns
    occluders: tuple[Occluder, ...]


@functools.lru_cache(maxsize=8)
def make_camera(config: StreetConfig, population: int, index: int) -> Camera:
    """Returns camera `index` of a population; identical in every process."""
    rng = generator(config, population, Stream.CAMERA, index)
    strength = config.camera_strength
    cast = np.exp(strength * rng.normal(0, 0.16, 3))
    exposure = np.exp(strength * rng.normal(0, 0.3))
    street = _empty_street(rng, config)
    return Camera(
        view=float(rng.uniform(0, 2 * np.pi)),
        pitch=float(rng.uniform(0.05, 0.4)),
        light=float(rng.uniform(-1, 1)),
        gain=(cast / cast.mean() * exposure).astype(np.float32),
        contrast=float(1 + strength * rng.uniform(-0.35, 0.2)),
        tone=float(strength * rng.uniform(-0.4, 0.4)),
        blur=float(min(1, strength * rng.uniform(0, 1.3))),
        noise=float(strength * rng.uniform(0, 0.06)),
        plate=np.concatenate([street, street[:, :, : config.width]], 2),
        around=street.shape[2],
        occluders=_occluders(rng, config),
    )


def develop(canvas: np.ndarray, camera: Camera, light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Applies the camera's colours, blur and noise: `[3, crops, h, w]` in [0, 1] -> uint8 `[crops, h, w, 3]`.

    `light` [crops] multiplies the exposure. The canvas is modified in place.
    """
    canvas *= camera.gain.reshape(3, 1, 1, 1) * light.astype(np.float32).reshape(1, -1, 1, 1)
    _cut(canvas, 1)
    if camera.tone:
        canvas += np.float32(camera.tone) * canvas * (1 - canvas)
    canvas *= np.float32(255 * camera.contrast)
    canvas += np.float32(255 * 0.5 * (1 - camera.contrast) + 0.5)  # contrast leaves middle grey unchanged
    _blur(canvas, camera.blur)
    if camera.noise:
        _add_noise(canvas, 255 * camera.noise, rng)
    crops = np.empty((*canvas.shape[1:], 3), np.uint8)
    for channel, plane in enumerate(_cut(canvas, 255)):
        crops[..., channel] = plane
    return crops


def _cut(canvas: np.ndarray, high: float) -> np.ndarray:
    np.maximum(canvas, 0, out=canvas)
    return np.minimum(canvas, high, out=canvas)


def _blur(canvas: np.ndarray, amount: float) -> None:
    """Averages neighbouring pixels vertically and horizontally, in place; at 1 a pixel keeps half its own light."""
    for one, other in (
        (canvas[:, :, :-1], canvas[:, :, 1:]),
        (canvas[..., :-1], canvas[..., 1:]),
    ):
        step = other - one
        step *= np.float32(amount / 4)
        one += step
        other -= step


def _add_noise(canvas: np.ndarray, deviation: float, rng: np.random.Generator) -> None:
    """Adds sensor noise, sliced at random from a bank: drawing it anew would take longer than drawing the people."""
    channels, crops, height, width = canvas.shape
    size = channels * height * width
    bank = _noise_bank(8 * size)
    for crop, start in enumerate(rng.integers(7 * size, size=crops).tolist()):
        noise = bank[start : start + size].reshape(channels, height, width)
        canvas[:, crop] += np.float32(deviation) * noise


@functools.cache
def _noise_bank(size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(size, np.float32)


def _empty_street(rng: np.random.Generator, config: StreetConfig) -> np.ndarray:
    """Draws a stained wall with doors and windows above a pavement: `[3, rows, columns]`."""
    height = config.height
    rows, columns = height, PLATE_LENGTH * height
    wall, ground, trim = (_matt(rng) for _ in range(3))
    foot = int(rows * rng.uniform(0.45, 0.65))
    canvas = np.empty((3, 1, rows, columns), np.float32)
    canvas[:, :, :foot], canvas[:, :, foot:] = wall.reshape(3, 1, 1, 1), ground.reshape(3, 1, 1, 1)
    for _ in range(int(rng.integers(8, 20))):
        x, half = rng.uniform(0, columns), rng.uniform(0.05, 0.25) * height
        top = rng.uniform(0, 0.3) * rows
        bottom = foot if rng.random() < 0.4 else top + rng.uniform(0.1, 0.3) * rows
        _patch(canvas, x, top, min(bottom, foot), half, trim * rng.uniform(0.5, 1.3))
    for x in np.arange(0, columns, height * rng.uniform(0.3, 0.9)):  # joints between the flagstones
        _patch(canvas, x, foot, rows, 0.01 * height, 0.75 * ground)
    canvas += _wear(rng, rows, columns)
    grey = canvas.mean(0)
    muted = grey.mean() + config.background * (canvas[:, 0] - grey.mean())
    return np.clip(muted, 0, 1)


def _patch(canvas: np.ndarray, x: float, top: float, bottom: float, half: float, colour: np.ndarray) -> None:
    ends = np.array([[x, top]], np.float32), np.array([[x, bottom]], np.float32)
    raster.paint(canvas, raster.trapezoid(canvas, *ends, half, half), np.minimum(colour, 1))


def _wear(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Returns smooth stains at several scales, `[rows, columns]`; the same pattern at every resolution."""
    stains = np.zeros((rows, columns), np.float32)
    for across in (32, 8, 3):  # stains per crop height
        coarse = rng.standard_normal((across + 2, PLATE_LENGTH * across + 2))
        y, x = np.arange(rows) * across / rows, np.arange(columns) * across / rows
        along = np.stack([np.interp(x, np.arange(coarse.shape[1]), line) for line in coarse])
        low = y.astype(int)
        share = (y - low)[:, None]
        stains += (0.05 * ((1 - share) * along[low] + share * along[low + 1])).astype(np.float32)
    return stains


def _occluders(rng: np.random.Generator, config: StreetConfig) -> tuple[Occluder, ...]:
    """Draws full-height poles, and objects as high as a bin or a parked car."""
    occluders = []
    for _ in range(int(rng.poisson(2 * config.occlusion))):
        pole = rng.random() < 0.4
        top = -0.1 if pole else rng.uniform(0.6, 0.85)
        half_width = rng.uniform(0.015, 0.04) if pole else rng.uniform(0.08, 0.25)
        occluders.append(Occluder(float(rng.uniform(0, PLATE_LENGTH)), float(top), float(half_width), _matt(rng)))
    return tuple(occluders)


def _matt(rng: np.random.Generator) -> np.ndarray:
    """Draws a random colour for buildings and street furniture."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.2, 0.9)), np.float32)
