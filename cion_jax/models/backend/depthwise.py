"""Depthwise convolution on a CPU: sums of shifted products, which XLA's CPU compiler turns into elementwise loops."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from cion_jax.models.backend.windows import output_size, taps


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Depthwise convolution of `[b, h, w, c]` with `[size, size, 1, out]`, `out` a multiple of `c`."""
    # every channel once for each of its outputs, which lie beside each other
    repeated = jnp.repeat(x, kernel.shape[-1] // x.shape[-1], axis=-1)
    return _unpadded(*_pad_and_trim(repeated, kernel, stride, padding), stride)


def _pad_and_trim(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> tuple[jax.Array, jax.Array]:
    """`x` with its padding, and `kernel` without the outer taps that see nothing but padding.

    Maps smaller than the kernel have such taps: of 9x9 on a 4x2 map, 7x3 are left.
    """
    borders = [(0, 0)]
    for axis, outputs in enumerate(output_size(x.shape, kernel.shape, stride, padding)):
        size, length = kernel.shape[axis], x.shape[axis + 1]
        low, high = max(0, padding - (outputs - 1) * stride), max(0, size - padding - length)
        kernel = lax.slice_in_dim(kernel, low, size - high, axis=axis)
        borders.append((padding - low, padding - high))
    return jnp.pad(x, [*borders, (0, 0)]), kernel


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _unpadded(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Depthwise convolution without padding, `kernel` of any height and width."""
    height, width, _, c = kernel.shape
    products = list(map(jnp.multiply, taps(x, kernel.shape, stride, 0), kernel.reshape(-1, c)))
    # one sum for every kernel row: additions that need not wait for one another
    sums = [functools.reduce(jnp.add, products[i * width : (i + 1) * width]) for i in range(height)]
    return functools.reduce(jnp.add, sums)


def _unpadded_forward(x, kernel, stride):
    return _unpadded(x, kernel, stride), (x, kernel)


def _unpadded_backward(stride, residuals, gradient):
    x, kernel = residuals
    return (
        _input_gradient(x.shape, kernel, gradient, stride),
        _kernel_gradient(x, kernel.shape, gradient, stride),
    )


def _input_gradient(shape: tuple, kernel: jax.Array, gradient: jax.Array, stride: int) -> jax.Array:
    """X[h] = sum over i, k with i stride + k = h of gradient[i] kernel[k], and the same for columns.

    With h = m stride + r and k = t stride + r this is, for every phase r, a convolution of stride 1 of the gradient
    with the kernel's taps t of that phase. All phases are computed side by side, `[b, m, r, m', r', c]`.
    """
    b, height, width, c = shape
    sizes = [-(-size // stride) for size in kernel.shape[:2]]  # taps of a phase, the kernel filled up with zeros
    fill = [(0, size * stride - kernel.shape[axis]) for axis, size in enumerate(sizes)]
    phases = jnp.pad(kernel[:, :, 0], [*fill, (0, 0)]).reshape(sizes[0], stride, sizes[1], stride, c)
    flipped = phases[::-1, :, ::-1].swapaxes(1, 2).reshape(-1, stride, 1, stride, c)
    lengths = [-(-length // stride) for length in (height, width)]
    borders = [(sizes[axis] - 1, lengths[axis] - gradient.shape[axis + 1]) for axis in (0, 1)]
    shifted = taps(jnp.pad(gradient, [(0, 0), *borders, (0, 0)]), tuple(sizes), 1, 0)
    products = [tap[:, :, None, :, None] * kernels for tap, kernels in zip(shifted, flipped)]
    whole = functools.reduce(jnp.add, products).reshape(b, lengths[0] * stride, lengths[1] * stride, c)
    return whole[:, :height, :width]


def _kernel_gradient(x: jax.Array, kernel_shape: tuple, gradient: jax.Array, stride: int) -> jax.Array:
    """K[i, j, c] = sum over b, h, w of x[b, h stride + i, w stride + j, c] gradient[b, h, w, c], of `kernel_shape`.

    XLA's CPU sums are slow, its elementwise loops are not: a loop over rows adds products up for every i, j, w and
    c, which stay in cache, and one sum over w ends it. A step of the loop adds several images, so that their
    products are one pass over those sums.
    """
    b, rows, columns, c = gradient.shape
    height, width = kernel_shape[:2]
    images = math.gcd(b, 16)

    def add_row(step, total):
        first, row = step // rows * images, step % rows
        seen = lax.dynamic_slice(x, (first, row * stride, 0, 0), (images, height, *x.shape[2:]))
        line = lax.dynamic_slice(gradient, (first, row, 0, 0), (images, 1, columns, c))
        for image, image_line in zip(seen.astype(total.dtype), line.astype(total.dtype)):
            total = total + _column_taps(image, width, columns, stride) * image_line
        return total

    total = jnp.zeros((height, width, columns, c), jnp.promote_types(x.dtype, jnp.float32))
    total = lax.fori_loop(0, rows * (b // images), add_row, total)
    return jnp.sum(total, axis=2)[:, :, None].astype(x.dtype)


def _column_taps(x: jax.Array, size: int, columns: int, stride: int) -> jax.Array:
    """`[rows, width, c] -> [rows, size, columns, c]`: at j, w what stands in column w stride + j.

    Copies of `x` in a row, cut into pieces one longer than `x`, start one column later each time. It is only
    indexing, which XLA fuses into the loop that reads it.
    """
    rows, width, c = x.shape
    copies = jnp.broadcast_to(x[:, None], (rows, size + 1, width, c)).reshape(rows, (size + 1) * width, c)
    pieces = copies[:, : size * (width + 1)].reshape(rows, size, width + 1, c)
    return pieces[:, :, : (columns - 1) * stride + 1 : stride]


_unpadded.defvjp(_unpadded_forward, _unpadded_backward)
