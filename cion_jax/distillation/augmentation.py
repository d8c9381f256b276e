"""Multi-crop augmentation on the device: random resized crops, then DINO's colour chain (Sec. 3.3, T_t and T_s).

The host sends each decoded image once, as uint8 on a common canvas; all views are made here, batched, from one key
per image, so the result does not depend on how a batch is split over devices. Default strengths are the released ones.

Differences from the released PIL chain, in grey levels of 255 on a test picture (tests/test_augmentation.py):

- random resized crop, contrast, saturation: at most 2; brightness, grayscale, solarize: at most 1. PIL rounds to whole
  levels after every operation; nothing is rounded here;
- hue: at most 9, on average below 1, because PIL stores hue and saturation as bytes;
- images larger than `pretrain.canvas` are shrunk to it before cropping: for noisy images of twice the canvas size,
  crops differ by 3 to 7 on average. A larger canvas costs only transfers and device memory;
- blur: at most 6, on average below 0.7. This is a true Gaussian truncated at three standard deviations, PIL's is
  three box filters;
- brightness, contrast, saturation and hue are applied in this order instead of a random one: below 1 on average over
  draws, and at most 8 on average over one image.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from cion_jax.distillation.crop import BOX_DRAWS, crop_and_resize, random_box
from cion_jax.samples.images import IMAGENET_MEAN, IMAGENET_STD

_LUMA = (0.299, 0.587, 0.114)
_DRAWS = BOX_DRAWS + 10  # uniform random numbers per view


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Sizes, (height, width) in pixels; scales, fractions of the image's area; strengths and probabilities.

    `blur` has the probabilities of the first global view, the second, and the local views. `solarize` is the
    probability in the second global view; no other view is solarized.
    """

    global_size: tuple[int, int] = (256, 128)
    local_size: tuple[int, int] = (128, 64)
    local_views: int = 8
    global_scale: tuple[float, float] = (0.8, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.8)
    aspect_ratio: tuple[float, float] = (0.4, 0.6)
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grayscale: float = 0.2
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.2
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self):
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"augmentation {name} must satisfy 0 < low <= high <= 1, got {(low, high)}")


def make_views(
    images: jax.Array, sizes: jax.Array, keys: jax.Array, settings: Augmentation
) -> tuple[jax.Array, jax.Array | None]:
    """Two global and `local_views` local views of every image, normalised.

    Args:
        images: uint8 `[b, canvas height, canvas width, 3]`, each image in the upper left corner.
        sizes: int32 `[b, 2]`, height and width of each image on its canvas.
        keys: typed PRNG keys `[b]`.
        settings: sizes and strengths.

    Returns:
        Globals `[2, b, h, w, 3]` and locals `[v, b, h', w', 3]` (None without local views), float32.
    """
    s = settings
    chance = [(s.blur[0], 0.0), (s.blur[1], s.solarize)] + [(s.blur[2], 0.0)] * s.local_views
    # All random numbers in one draw: every separate draw adds half a second of compilation.
    draws = jax.vmap(lambda key: jax.random.uniform(key, (len(chance), _DRAWS)), out_axes=1)(keys)

    def views(draws: jax.Array, chance: list, size: tuple[int, int], scale: tuple[float, float]) -> jax.Array:
        blur, solarize = (jnp.asarray(c, jnp.float32) for c in zip(*chance))
        one = functools.partial(_view, settings=s, view_size=size, scale=scale)
        batched = jax.vmap(one, in_axes=(0, 0, 0, None, None))
        return jax.vmap(batched, in_axes=(None, None, 0, 0, 0))(images, sizes, draws, blur, solarize)

    whole = views(draws[:2], chance[:2], s.global_size, s.global_scale)
    if not s.local_views:
        return whole, None
    return whole, views(draws[2:], chance[2:], s.local_size, s.local_scale)


def sample_keys(seed: int, step: jax.Array, positions: jax.Array) -> jax.Array:
    """One typed PRNG key per image, `[b]`, from (seed, step, position in the global batch)."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)


def _view(
    image: jax.Array,
    size: jax.Array,
    draws: jax.Array,
    chance_of_blur: jax.Array,
    chance_of_solarize: jax.Array,
    *,
    settings: Augmentation,
    view_size: tuple[int, int],
    scale: tuple[float, float],
) -> jax.Array:
    """One view of one image, `[h, w, 3]`, from `_DRAWS` uniform draws; `chance_of_...` are probabilities."""
    for_box, for_jitter, (flip, gray, blurred, sigma, solarized) = jnp.split(draws, (BOX_DRAWS, BOX_DRAWS + 5))
    box = random_box(for_box, size, scale=scale, ratio=settings.aspect_ratio)
    x = crop_and_resize(image, box, view_size, flip=flip < 0.5) / 255
    x = color_jitter(x, for_jitter, settings)
    x = jnp.where(gray < settings.grayscale, luma(x), x)
    low, high = settings.blur_sigma
    x = jnp.where(blurred < chance_of_blur, gaussian_blur(x, low + (high - low) * sigma, max_sigma=high), x)
    x = jnp.where(solarized < chance_of_solarize, solarize(x), x)
    return (x - jnp.asarray(settings.mean)) / jnp.asarray(settings.std)


def color_jitter(x: jax.Array, draws: jax.Array, settings: Augmentation) -> jax.Array:
    """Brightness, contrast, saturation and hue of an image in [0, 1], from 5 uniform draws.

    The first draw decides if jitter is applied, the other four set its amounts.
    """
    strengths = jnp.asarray([settings.brightness, settings.contrast, settings.saturation, settings.hue])
    amounts = jnp.where(draws[0] < settings.jitter, (2 * draws[1:] - 1) * strengths, 0.0)
    x = jnp.clip(x * (1 + amounts[0]), 0, 1)
    x = blend(x, luma(x).mean(), 1 + amounts[1])
    x = blend(x, luma(x), 1 + amounts[2])
    return shift_hue(x, amounts[3])


def blend(x: jax.Array, other: jax.Array, amount: jax.Array) -> jax.Array:
    """Interpolates from `other` (amount 0) to `x` (amount 1), or extrapolates; clipped to [0, 1]."""
    return jnp.clip(other + amount * (x - other), 0, 1)


def luma(x: jax.Array) -> jax.Array:
    """ITU-R 601 luma, `[..., 3] -> [..., 1]`."""
    return (x * jnp.asarray(_LUMA)).sum(-1, keepdims=True)


def solarize(x: jax.Array) -> jax.Array:
    """Inverts values of at least 128 grey levels (128 / 255) in an image in [0, 1]."""
    return jnp.where(x >= 128 / 255, 1 - x, x)


def shift_hue(x: jax.Array, turns: jax.Array) -> jax.Array:
    """Rotates the hue by `turns` of the HSV circle, `[..., 3]` in [0, 1].

    With value v, chroma c and hue h in turns, channel n in (5, 3, 1) of HSV -> RGB is
    v - c max(0, min(k, 4 - k, 1)), k = (n + 6 h) mod 6.
    """
    r, g, b = x[..., 0], x[..., 1], x[..., 2]
    value, chroma = x.max(-1), x.max(-1) - x.min(-1)
    safe = jnp.where(chroma == 0, 1.0, chroma)
    hue = jnp.where(value == r, (g - b) / safe, jnp.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    k = (jnp.asarray([5.0, 3.0, 1.0]) + (hue + 6 * turns)[..., None]) % 6
    return value[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)


def gaussian_blur(x: jax.Array, sigma: jax.Array, *, max_sigma: float) -> jax.Array:
    """Gaussian blur of `[h, w, 3]` with edges repeated; `sigma` in pixels, at most `max_sigma`."""
    rows, columns = (_blur_weights(sigma, size, max_sigma) for size in x.shape[:2])
    return jnp.einsum("ph,ow,hwc->poc", rows, columns, x, precision=jax.lax.Precision.HIGHEST)


def _blur_weights(sigma: jax.Array, size: int, max_sigma: float) -> jax.Array:
    """Matrix `[size, size]` that blurs a line of pixels."""
    radius = min(int(3 * max_sigma + 0.5), size - 1)
    offsets = np.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * jnp.square(offsets / sigma))
    source = np.clip(np.arange(size)[:, None] + offsets, 0, size - 1)  # [pixel, offset]
    shifts = (source[..., None] == np.arange(size)).astype(np.float32)
    return jnp.einsum("k,pks->ps", weights / weights.sum(), shifts, precision=jax.lax.Precision.HIGHEST)
