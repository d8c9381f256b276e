"""Random resized crops as two small matrix products, within two grey levels of PIL's crop and bicubic resize.

`jax.image.scale_and_translate` would use pixels outside the crop; here the weights end at the box, as in PIL.
"""

import jax
import jax.numpy as jnp

# Candidate boxes per crop; like torchvision's RandomResizedCrop, the first that fits is taken.
_ATTEMPTS = 10
BOX_DRAWS = 2 * _ATTEMPTS + 2  # uniform random numbers per box


def random_box(
    draws: jax.Array, size: jax.Array, *, scale: tuple[float, float], ratio: tuple[float, float]
) -> jax.Array:
    """A random crop box `[top, left, height, width]` in whole pixels, float32.

    The area is uniform in `scale`, the aspect ratio log-uniform in `ratio`. If none of ten boxes fits, the largest
    centered box within `ratio` is used.

    Args:
        draws: `[BOX_DRAWS]`, uniform in [0, 1).
        size: height and width of the image, `[2]`.
        scale: smallest and largest area, as fractions of the image's.
        ratio: smallest and largest aspect ratio, width / height.
    """
    for_area, for_aspect, for_place = jnp.split(draws, (_ATTEMPTS, 2 * _ATTEMPTS))
    size = size.astype(jnp.float32)
    area = size.prod() * (scale[0] + (scale[1] - scale[0]) * for_area)
    low, high = jnp.log(jnp.asarray(ratio))
    aspect = jnp.exp(low + (high - low) * for_aspect)
    drawn = jnp.round(jnp.stack([jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)], axis=-1))
    fits = ((drawn > 0) & (drawn <= size)).all(-1)
    aspect_of_image = size[1] / size[0]
    height = jnp.where(aspect_of_image < ratio[0], jnp.round(size[1] / ratio[0]), size[0])
    width = jnp.where(aspect_of_image > ratio[1], jnp.round(size[0] * ratio[1]), size[1])
    centered = jnp.maximum(jnp.stack([height, width]), 1)
    box = jnp.where(fits.any(), drawn[jnp.argmax(fits)], centered)
    room = size - box
    random_place = jnp.floor(for_place * (room + 1))
    place = jnp.where(fits.any(), jnp.minimum(random_place, room), jnp.floor(room / 2))
    return jnp.concatenate([place, box])


def crop_and_resize(
    image: jax.Array, box: jax.Array, size: tuple[int, int], *, flip: jax.Array, shift: jax.Array | None = None
) -> jax.Array:
    """Crops `box` of `[h, w, 3]`, resizes it to `size` (antialiased bicubic) and mirrors it if `flip`.

    With `shift`, int32 `[2]`, the result is then moved up and left by so many pixels, and black moves in.

    Returns:
        Grey levels `[*size, 3]`, float32 in [0, 255].
    """
    rows = resize_weights(box[0], box[2], size[0], image.shape[0])
    columns = resize_weights(box[1], box[3], size[1], image.shape[1])
    columns = jnp.where(flip, columns[::-1], columns)
    if shift is not None:
        rows, columns = _moved(rows, shift[0]), _moved(columns, shift[1])
    # Full float32 products: grey levels must not be rounded to bfloat16 or TF32.
    exact = jax.lax.Precision.HIGHEST
    wide = jnp.einsum("ow,hwc->hoc", columns, image.astype(jnp.float32), precision=exact)
    return jnp.clip(jnp.einsum("ph,hoc->poc", rows, jnp.clip(wide, 0, 255), precision=exact), 0, 255)


def _moved(weights: jax.Array, shift: jax.Array) -> jax.Array:
    """Rows `shift`, `shift + 1`, ... of the weights, and rows of zeros where there are none."""
    row = jnp.arange(len(weights)) + shift
    inside = (row >= 0) & (row < len(weights))
    return jnp.where(inside[:, None], weights[jnp.clip(row, 0, len(weights) - 1)], 0.0)


def resize_weights(start: jax.Array, length: jax.Array, size: int, canvas: int) -> jax.Array:
    """Weights `[size, canvas]` that resize the `length` pixels from `start` on to `size` pixels.

    The cubic kernel (a = -0.5) is stretched by the scale when shrinking; each row sums to one within the box.
    """
    scale = length / size
    stretch = jnp.maximum(scale, 1.0)
    center = start + (jnp.arange(size) + 0.5) * scale
    pixel = jnp.arange(canvas)
    weights = _cubic((pixel + 0.5 - center[:, None]) / stretch)
    weights = jnp.where((pixel >= start) & (pixel < start + length), weights, 0.0)
    return weights / weights.sum(-1, keepdims=True)


def _cubic(x: jax.Array, a: float = -0.5) -> jax.Array:
    """Cubic convolution kernel (Keys, 1981), as PIL's bicubic filter."""
    x = jnp.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0.0))
