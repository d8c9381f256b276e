"""Augmentation of fine-tuning on the device: resize, flip, pad and crop, normalise, random erasing.

Order and rules are those of the released TransReID, FastReID and Cluster-Contrast, which differ in the settings of
random erasing only. Images are resized from the canvas that the host sends; grey levels are not rounded (at most one
level from PIL's, see `cion_jax.distillation.augmentation`).
"""

import dataclasses

import jax
import jax.numpy as jnp

from cion_jax.distillation.crop import crop_and_resize
from cion_jax.distillation.erasing import Erasing, erase
from cion_jax.runtime.config import Config

_DRAWS = 3  # uniform random numbers per image, besides those of random erasing


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Size (height, width) and border in pixels, probability of mirroring; mean and standard deviation of RGB."""

    size: tuple[int, int] = (256, 128)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    flip: float = 0.5
    pad: int = 10
    erasing: Erasing = dataclasses.field(default_factory=Erasing)


def augmentation_of(settings: Config) -> Augmentation:
    """The augmentation of a method, from its group of the config."""
    s = settings.augmentation
    return Augmentation(
        tuple(settings.size), tuple(settings.mean), tuple(settings.std), s.flip, s.pad, Erasing(**s.erasing)
    )


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
