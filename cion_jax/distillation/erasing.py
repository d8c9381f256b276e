"""Random erasing on the device (Zhong et al., "Random Erasing Data Augmentation", AAAI 2020)."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

_PER_ATTEMPT = 2  # uniform random numbers


@dataclasses.dataclass(frozen=True)
class Erasing:
    """Random erasing (Zhong et al., AAAI 2020): a box of random area and aspect ratio is overwritten.

    Attributes:
        probability: of erasing an image.
        area: smallest and largest area, as fractions of the image's.
        aspect: smallest and largest height / width.
        log_aspect: draw the aspect ratio uniformly in its logarithm.
        attempts: boxes that are drawn until one fits; if none does, nothing is erased.
        fill: value of each channel after normalisation; None is standard normal noise for every pixel and channel.
    """

    probability: float = 0.5
    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)
    log_aspect: bool = True
    attempts: int = 10
    fill: tuple[float, float, float] | None = None


def erase(x: jax.Array, key: jax.Array, settings: Erasing) -> jax.Array:
    """Random erasing of a normalised image `[h, w, 3]`."""
    for_box, for_fill = jax.random.split(key)
    inside = erased_box(x.shape[:2], for_box, settings)
    if settings.fill is None:
        fill = jax.random.normal(for_fill, x.shape, x.dtype)
    else:
        fill = jnp.asarray(settings.fill, x.dtype)
    return jnp.where(inside[..., None], fill, x)


def erased_box(size: Sequence[int], key: jax.Array, settings: Erasing) -> jax.Array:
    """The pixels to erase, bool `[h, w]`: one box, or none.

    With area fraction A, aspect ratio r and an image of H x W pixels, a box has height round(sqrt(A H W r)) and width
    round(sqrt(A H W / r)); it fits if both are smaller than the image's.
    """
    tries = settings.attempts
    draws = jax.random.uniform(key, (3 + _PER_ATTEMPT * tries,))
    applied, row, column = draws[:3]
    for_area, for_aspect = jnp.split(draws[3:], _PER_ATTEMPT)
    low, high = settings.area
    area = math.prod(size) * (low + (high - low) * for_area)
    aspect = _between(settings.aspect, for_aspect, logarithmic=settings.log_aspect)
    boxes = jnp.round(jnp.stack([jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)], axis=-1))
    fits = (boxes < jnp.asarray(size)).all(-1)
    box = boxes[jnp.argmax(fits)]
    place = jnp.floor(jnp.stack([row, column]) * (jnp.asarray(size) - box + 1))
    rows, columns = (
        (jnp.arange(n) >= start) & (jnp.arange(n) < start + length) for n, start, length in zip(size, place, box)
    )
    return (rows[:, None] & columns) & fits.any() & (applied < settings.probability)


def _between(ends: tuple[float, float], draws: jax.Array, *, logarithmic: bool) -> jax.Array:
    low, high = (math.log(end) for end in ends) if logarithmic else ends
    drawn = low + (high - low) * draws
    return jnp.exp(drawn) if logarithmic else drawn
