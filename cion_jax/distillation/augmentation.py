"""Multi-crop augmentation on the device: random resized crops, then DINO's colour chain (Sec. 3.3, T_t and T_s).

The host ships each decoded image once, as uint8 on a common canvas; every view is made here, batched, from a key
per image, so the result does not depend on how a batch is split over devices. Strengths are the released ones.
Differences from the released PIL chain: brightness, contrast, saturation and hue come in this order instead of a
random one; the blur is a true Gaussian (PIL approximates it by box filters) cut at three standard deviations; grey
levels are not rounded between operations.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from cion_jax.distillation.crop import crop_and_resize, random_box

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Sizes and strengths. Sizes are (height, width) in pixels, scales are shares of the image's area."""

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
    keys = jax.vmap(lambda key: jax.random.split(key, len(chance)), out_axes=1)(keys)

    def views(keys: jax.Array, chance: list, view_size: tuple[int, int], scale: tuple[float, float]) -> jax.Array:
        blur, solarize = (jnp.asarray(c, jnp.float32) for c in zip(*chance))
        one = functools.partial(_view, settings=s, view_size=view_size, scale=scale)
        batched = jax.vmap(one, in_axes=(0, 0, 0, None, None))
        return jax.vmap(batched, in_axes=(None, None, 0, 0, 0))(images, sizes, keys, blur, solarize)

    whole = views(keys[:2], chance[:2], s.global_size, s.global_scale)
    if not s.local_views:
        return whole, None
    return whole, views(keys[2:], chance[2:], s.local_size, s.local_scale)


def sample_keys(seed: int, step: jax.Array, positions: jax.Array) -> jax.Array:
    """One key per image from (seed, step, position in the global batch)."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)


def _view(
    image: jax.Array,
    size: jax.Array,
    key: jax.Array,
    blur: jax.Array,
    solarize: jax.Array,
    *,
    settings: Augmentation,
    view_size: tuple[int, int],
    scale: tuple[float, float],
) -> jax.Array:
    """One view of one image, `[h, w, 3]`; `blur` and `solarize` are probabilities."""
    box_key, flip_key, jitter_key, gray_key, blur_key, solarize_key = jax.random.split(key, 6)
    box = random_box(box_key, size, scale=scale, ratio=settings.aspect_ratio)
    x = crop_and_resize(image, box, view_size, flip=_happens(flip_key, 0.5)) / 255
    x = color_jitter(x, jitter_key, settings)
    gray = jnp.broadcast_to(luma(x), x.shape)
    x = jnp.where(_happens(gray_key, settings.grayscale), gray, x)
    apply_key, sigma_key = jax.random.split(blur_key)
    sigma = jax.random.uniform(sigma_key, minval=settings.blur_sigma[0], maxval=settings.blur_sigma[1])
    blurred = gaussian_blur(x, sigma, max_sigma=settings.blur_sigma[1])
    x = jnp.where(_happens(apply_key, blur), blurred, x)
    x = jnp.where(_happens(solarize_key, solarize) & (x >= 128 / 255), 1 - x, x)
    return (x - jnp.asarray(settings.mean)) / jnp.asarray(settings.std)


def _happens(key: jax.Array, probability: jax.Array | float) -> jax.Array:
    return jax.random.uniform(key) < probability


def color_jitter(x: jax.Array, key: jax.Array, settings: Augmentation) -> jax.Array:
    """Brightness, contrast, saturation and hue of an image in [0, 1], applied with probability `jitter`."""
    amounts = jnp.asarray([settings.brightness, settings.contrast, settings.saturation, settings.hue])
    apply_key, amount_key = jax.random.split(key)
    drawn = jax.random.uniform(amount_key, (4,), minval=-1) * amounts
    drawn = jnp.where(_happens(apply_key, settings.jitter), drawn, 0.0)
    brightness, contrast, saturation, hue = 1 + drawn[0], 1 + drawn[1], 1 + drawn[2], drawn[3]
    x = jnp.clip(x * brightness, 0, 1)
    x = blend(x, luma(x).mean(), contrast)
    x = blend(x, luma(x), saturation)
    return shift_hue(x, hue)


def blend(x: jax.Array, other: jax.Array, amount: jax.Array) -> jax.Array:
    """`other` at amount 0, `x` at 1, beyond it by extrapolation; clipped to [0, 1]."""
    return jnp.clip(other + amount * (x - other), 0, 1)


def luma(x: jax.Array) -> jax.Array:
    """ITU-R 601 brightness, `[..., 3] -> [..., 1]`."""
    return (x * jnp.asarray(_LUMA)).sum(-1, keepdims=True)


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
    radius = min(int(3 * max_sigma + 0.5), min(x.shape[:2]) - 1)
    offsets = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * jnp.square(offsets / sigma))
    weights = weights / weights.sum()
    for axis in (0, 1):
        length = x.shape[axis]
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = jnp.pad(x, pad, mode="edge")
        shifted = [jax.lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(2 * radius + 1)]
        x = sum((w * s for w, s in zip(weights, shifted)), jnp.zeros_like(x))
    return x
