"""Augmentation of fine-tuning on the device: resize, flip, pad and crop, normalise, random erasing.

Order and rules are those of the released TransReID, FastReID and Cluster-Contrast, which differ in the settings of
random erasing only. Images are resized from the canvas that the host sends; grey levels are not rounded (at most one
level from PIL's, see `cion_jax.distillation.augmentation`).
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from cion_jax.distillation.crop import crop_and_resize

_DRAWS = 3  # uniform random numbers per image, besides those of random erasing
_PER_ATTEMPT = 2


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


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Size (height, width) and border in pixels, probability of mirroring; mean and standard deviation of RGB."""

    size: tuple[int, int] = (256, 128)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    flip: float = 0.5
    pad: int = 10
    erasing: Erasing = Erasing()


def augment(images: jax.Array, sizes: jax.Array, keys: jax.Array, settings: Augmentation) -> jax.Array:
    """Augmented and normalised images, float32 `[b, *settings.size, 3]`.

    Args:
        images: uint8 `[b, canvas height, canvas width, 3]`, each image in the upper left corner.
        sizes: int32 `[b, 2]`, height and width of each image on its canvas.
        keys: typed PRNG keys `[b]`.
        settings: sizes and probabilities.
    """
    return jax.vmap(lambda image, size, key: _augmented(image, size, key, settings))(images, sizes, keys)


def _augmented(image: jax.Array, size: jax.Array, key: jax.Array, settings: Augmentation) -> jax.Array:
    for_geometry, for_erasing = jax.random.split(key)
    flip, *place = jax.random.uniform(for_geometry, (_DRAWS,))
    shift = jnp.floor(jnp.stack(place) * (2 * settings.pad + 1)).astype(jnp.int32) - settings.pad
    box = jnp.concatenate([jnp.zeros(2), size.astype(jnp.float32)])
    x = crop_and_resize(image, box, settings.size, flip=flip < settings.flip, shift=shift) / 255
    x = (x - jnp.asarray(settings.mean)) / jnp.asarray(settings.std)
    return erase(x, for_erasing, settings.erasing)


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
