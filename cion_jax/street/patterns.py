"""Garment patterns, wrapped around the wearer so that they turn with the body."""

import numpy as np

from cion_jax.street.people import Garment
from cion_jax.street.raster import Shape


def cloth(garment: Garment, shape: Shape, azimuth: np.ndarray) -> np.ndarray:
    """Returns the colour of a garment in a shape: [3] if plain, else [3, crops, h, w].

    `azimuth` [crops] is the direction the wearer faces, in radians (0: the camera).
    """
    colour = np.array(garment.colour, np.float32)
    if garment.pattern == "plain":
        return colour
    # Angle of a pixel around the body: a garment is modelled as a cylinder with its front at 0.
    around = np.arcsin(shape.across) - _column(azimuth)
    share = _PATTERNS[garment.pattern](around, shape.along, garment.scale)
    second = np.array(garment.second, np.float32)
    return colour.reshape(3, 1, 1, 1) + share * (second - colour).reshape(3, 1, 1, 1)


def _column(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


def _edge(wave: np.ndarray, sharpness: float = 4.0) -> np.ndarray:
    """Converts a wave in [-1, 1] into two tones, 0 and 1, with a soft edge between them."""
    return np.clip(wave * sharpness + 0.5, 0, 1)


def _hoops(around, along, scale):
    return _edge(np.sin(along * (2 * np.pi * scale)))


def _stripes(around, along, scale):
    return _edge(np.sin(around * np.round(2 * scale)))


def _checks(around, along, scale):
    return 0.5 * (_edge(np.sin(around * np.round(1.5 * scale))) + _edge(np.sin(along * (2 * np.pi * scale))))


def _dots(around, along, scale):
    return _edge(np.sin(around * np.round(1.5 * scale)) * np.sin(along * (np.pi * 1.6 * scale)) - 0.4)


def _blocks(around, along, scale):
    return _edge(along - 0.5 + 0.1 * (scale - 4.5), 12.0)


def _camouflage(around, along, scale):
    down = along * (1.3 * scale)
    return _edge(np.sin(2 * around + 2.1 * np.sin(down)) + np.sin(3 * around - 2.3 * down + scale), 2.0)


def _print(around, along, scale):
    """Badge on the front; uses the cosine because `around` may exceed one turn."""
    return _edge(np.cos(around) - 0.75 - 7 * (along - 0.38) ** 2, 6.0)


_PATTERNS = {
    "hoops": _hoops,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "blocks": _blocks,
    "camouflage": _camouflage,
    "print": _print,
}
