"""Cameras: where they look from, what stands in their view, and what they do to colours."""

import dataclasses
import functools

import numpy as np

from cion_jax.street import raster
from cion_jax.street.config import StreetConfig
from cion_jax.street.randomness import Stream, generator


@dataclasses.dataclass(frozen=True)
class Occluder:
    """Something between the street and the camera. Lengths are in crop heights."""

    x: float  # of its middle, along the plate
    top: float  # of its upper edge, down from the top of the crop
    half_width: float
    colour: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Camera:
    """A fixed camera. `plate` is the empty street it sees, `[3, rows, columns]`; it repeats along the columns."""

    view: float  # radians between the street and the line of sight
    pitch: float  # radians by which it looks down
    light: float  # side that the light falls from, in [-1, 1]
    gain: np.ndarray  # [3]: colour cast times exposure
    contrast: float
    tone: float  # brightens (positive) or darkens the middle tones
    blur: float  # share of the neighbours in a pixel
    noise: float  # standard deviation
    plate: np.ndarray
    occluders: tuple[Occluder, ...]


@functools.lru_cache(maxsize=8)
def make_camera(config: StreetConfig, population: int, index: int) -> Camera:
    """The camera `index` of a population; the same one in every process."""
    rng = generator(config, population, Stream.CAMERA, index)
    strength = config.camera_strength
    cast = np.exp(strength * rng.normal(0, 0.16, 3))
    exposure = np.exp(strength * rng.normal(0, 0.3))
    return Camera(
        view=float(rng.uniform(0, 2 * np.pi)),
        pitch=float(rng.uniform(0.05, 0.4)),
        light=float(rng.uniform(-1, 1)),
        gain=(cast / cast.mean() * exposure).astype(np.float32),
        contrast=float(1 + strength * rng.uniform(-0.35, 0.2)),
        tone=float(strength * rng.uniform(-0.4, 0.4)),
        blur=float(strength * rng.uniform(0, 1)),
        noise=float(strength * rng.uniform(0, 0.09)),
        plate=_empty_street(rng, config),
        occluders=_occluders(rng, config),
    )


def develop(canvas: np.ndarray, camera: Camera, light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What the camera makes of a scene: `[3, crops, h, w]` in [0, 1] -> uint8 `[crops, h, w, 3]`.

    `light` [crops] multiplies the exposure. The canvas is used up.
    """
    canvas *= camera.gain.reshape(3, 1, 1, 1) * light.astype(np.float32).reshape(1, -1, 1, 1)
    np.clip(canvas, 0, 1, out=canvas)
    canvas += np.float32(camera.tone) * canvas * (1 - canvas)
    canvas -= 0.5
    canvas *= np.float32(camera.contrast)
    canvas += 0.5
    _blur(canvas, camera.blur)
    canvas += np.float32(camera.noise) * _grain(canvas.shape, rng)
    np.clip(canvas, 0, 1, out=canvas)
    canvas *= 255
    canvas += 0.5
    return np.ascontiguousarray(canvas.astype(np.uint8).transpose(1, 2, 3, 0))


def _blur(canvas: np.ndarray, share: float) -> None:
    """Mixes each pixel with its neighbours, down and across, in place."""
    share = np.float32(share * 0.5)
    for ahead, here, behind in (
        (canvas[:, :, 2:], canvas[:, :, 1:-1], canvas[:, :, :-2]),
        (canvas[..., 2:], canvas[..., 1:-1], canvas[..., :-2]),
    ):
        mean = ahead + behind
        mean *= share / 2
        here *= 1 - share
        here += mean


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Sensor noise, cut from a bank at a random place: drawing it anew would take half of the rendering time."""
    bank = _noise_bank()
    size = int(np.prod(shape))
    start = int(rng.integers(len(bank)))
    if size <= len(bank) - start:
        return bank[start : start + size].reshape(shape)
    return np.resize(np.roll(bank, -start), shape)


@functools.cache
def _noise_bank() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(1 << 21, np.float32)


def _empty_street(rng: np.random.Generator, config: StreetConfig) -> np.ndarray:
    """A wall with doors and windows over a pavement, both worn."""
    height = config.height
    rows, columns = height + height // 4, 6 * height
    wall, ground, trim = (rng.uniform(0.2, 0.85, 3) for _ in range(3))
    canvas = np.empty((3, 1, rows, columns), np.float32)
    canvas[:] = wall.reshape(3, 1, 1, 1)
    foot = int(rows * rng.uniform(0.45, 0.65))
    canvas[:, :, foot:] = ground.reshape(3, 1, 1, 1)
    for _ in range(int(rng.integers(8, 20))):
        x, half = rng.uniform(0, columns), rng.uniform(0.05, 0.25) * height
        top = rng.uniform(0, 0.3) * rows
        bottom = foot if rng.random() < 0.4 else top + rng.uniform(0.1, 0.3) * rows
        _patch(canvas, x, top, bottom, half, np.clip(trim * rng.uniform(0.5, 1.4), 0, 1))
    for x in np.arange(0, columns, height * rng.uniform(0.3, 0.9)):  # joints between the flagstones
        _patch(canvas, x, foot, rows, 0.6, ground * 0.75)
    worn = rng.standard_normal((1, 1, rows // 4, columns // 4)).astype(np.float32)
    canvas += 0.05 * np.repeat(np.repeat(worn, 4, 2), 4, 3)[:, :, :rows, :columns]
    grey = canvas.mean(0, keepdims=True)
    muted = grey.mean() + config.background * (canvas - grey + (grey - grey.mean()))
    return np.clip(muted[:, 0], 0, 1)


def _patch(canvas: np.ndarray, x: float, top: float, bottom: float, half: float, colour: np.ndarray) -> None:
    ends = np.array([[x, top]], np.float32), np.array([[x, bottom]], np.float32)
    raster.paint(canvas, raster.trapezoid(canvas, *ends, half, half), colour.astype(np.float32))


def _occluders(rng: np.random.Generator, config: StreetConfig) -> tuple[Occluder, ...]:
    """Poles from top to bottom, and things as high as a bin or a parked car."""
    found = []
    for _ in range(int(rng.poisson(2 * config.occlusion))):
        pole = rng.random() < 0.4
        top, half = (
            (-0.1, rng.uniform(0.015, 0.04)) if pole else (rng.uniform(0.6, 0.85), rng.uniform(0.08, 0.25))
        )
        found.append(
            Occluder(
                float(rng.uniform(0, 6)),
                float(top),
                float(half),
                rng.uniform(0.15, 0.8, 3).astype(np.float32),
            )
        )
    return tuple(found)
