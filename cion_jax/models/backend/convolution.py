"""One convolution for every layer, fast on CPU and on accelerators.

Accelerators run XLA's own convolution, forward and backward. XLA's CPU compiler is good at some convolutions
and far off at others (times of the standard form against the form used here, two CPU cores):

- kernel gradients: up to 5x slower than one matrix product per kernel tap;
- small output maps and kernels that do not overlap (1x1, patch embeddings): up to 15x slower than one matrix
  product of the unfolded patches;
- depthwise, forward and input gradient: 15-40x slower than a sum of shifted products; the kernel gradient is a
  loop over such sums.

The choice is made when a function is traced, for the platform of `cion_jax.runtime.platform` and from static shapes.
Every form computes the same sums; they differ in rounding only.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cion_jax.runtime.platform import on_cpu

# Up to this many output positions the unfolded patches stay in cache, and one matrix product wins.
_SMALL_MAP = 64


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0, groups: int = 1) -> jax.Array:
    """2-D cross-correlation, as PyTorch's `Conv2d` without the bias, channels last.

    Args:
        x: images `[b, h, w, c]`.
        kernel: `[size, size, c / groups, out]`, of the dtype of `x`.
        stride: step of the window, the same both ways.
        padding: zeros added at every border.
        groups: number of channel groups; `groups == c` is depthwise.

    Returns:
        `[b, (h + 2 padding - size) // stride + 1, (w + 2 padding - size) // stride + 1, out]`.
    """
    return _convolve(x, kernel, stride, padding, groups)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int) -> jax.Array:
    if not on_cpu():
        return _standard(x, kernel, stride, padding, groups)
    if groups == 1:
        rows, columns = _output_size(x.shape, kernel.shape, stride, padding)
        if len(kernel) <= stride or rows * columns <= _SMALL_MAP:
            return _unfolded(x, kernel, stride, padding)
        return _dense(x, kernel, stride, padding)
    if groups == x.shape[-1]:
        # every channel once for each of its outputs, which lie beside each other
        repeated = jnp.repeat(x, kernel.shape[-1] // groups, axis=-1)
        return _depthwise(*_pad_and_trim(repeated, kernel, stride, padding), stride)
    return _standard(x, kernel, stride, padding, groups)


def _output_size(x_shape: tuple, kernel_shape: tuple, stride: int, padding: int) -> tuple[int, int]:
    rows, columns = ((x_shape[i + 1] + 2 * padding - kernel_shape[i]) // stride + 1 for i in (0, 1))
    return rows, columns


def _standard(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int = 1) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def taps(x: jax.Array, kernel_shape: tuple, stride: int, padding: int) -> list[jax.Array]:
    """The input under every kernel position: size * size arrays `[b, rows, columns, c]`."""
    rows, columns = _output_size(x.shape, kernel_shape, stride, padding)
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    spans = (rows - 1) * stride + 1, (columns - 1) * stride + 1
    return [
        lax.slice(x, (0, i, j, 0), (x.shape[0], i + spans[0], j + spans[1], x.shape[-1]), (1, stride, stride, 1))
        for i, j in np.ndindex(*kernel_shape[:2])
    ]


def _patches(x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
    """Square windows of `x`, unfolded: `[b, rows, columns, size * size * c]`."""
    if size != stride or padding:
        return jnp.concatenate(taps(x, (size, size), stride, padding), axis=-1)
    b, rows, columns, c = x.shape[0], x.shape[1] // size, x.shape[2] // size, x.shape[3]
    tiles = x[:, : rows * size, : columns * size].reshape(b, rows, size, columns, size, c)
    return tiles.swapaxes(2, 3).reshape(b, rows, columns, size * size * c)


def _unfolded(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    patches = _patches(x, len(kernel), stride, padding)
    flat = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
    return flat.reshape(*patches.shape[:-1], kernel.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dense(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    return _standard(x, kernel, stride, padding)


def _dense_forward(x, kernel, stride, padding):
    return _standard(x, kernel, stride, padding), (x, kernel)


def _dense_backward(stride, padding, residuals, gradient):
    x, kernel = residuals
    (x_gradient,) = jax.linear_transpose(lambda x: _standard(x, kernel, stride, padding), x)(gradient)
    flat = gradient.reshape(-1, gradient.shape[-1])
    products = [tap.reshape(-1, tap.shape[-1]).T @ flat for tap in taps(x, kernel.shape, stride, padding)]
    return x_gradient, jnp.stack(products).reshape(kernel.shape)


_dense.defvjp(_dense_forward, _dense_backward)


def _pad_and_trim(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> tuple[jax.Array, jax.Array]:
    """`x` with its padding, and `kernel` without the outer taps that see nothing but padding.

    Maps smaller than the kernel have such taps: of 9x9 on a 4x2 map, 7x3 are left.
    """
    borders = [(0, 0)]
    for axis, outputs in enumerate(_output_size(x.shape, kernel.shape, stride, padding)):
        size, length = kernel.shape[axis], x.shape[axis + 1]
        low, high = max(0, padding - (outputs - 1) * stride), max(0, size - padding - length)
        kernel = lax.slice_in_dim(kernel, low, size - high, axis=axis)
        borders.append((padding - low, padding - high))
    return jnp.pad(x, [*borders, (0, 0)]), kernel


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Depthwise convolution without padding, `kernel` of any height and width."""
    height, width, _, c = kernel.shape
    products = list(map(jnp.multiply, taps(x, kernel.shape, stride, 0), kernel.reshape(-1, c)))
    # one sum for every kernel row: additions that need not wait for one another
    sums = [functools.reduce(jnp.add, products[i * width : (i + 1) * width]) for i in range(height)]
    return functools.reduce(jnp.add, sums)


def _depthwise_forward(x, kernel, stride):
    return _depthwise(x, kernel, stride), (x, kernel)


def _depthwise_backward(stride, residuals, gradient):
    x, kernel = residuals
    return (
        _depthwise_input_gradient(x.shape, kernel, gradient, stride),
        _depthwise_kernel_gradient(x, kernel.shape, gradient, stride),
    )


def _depthwise_input_gradient(shape: tuple, kernel: jax.Array, gradient: jax.Array, stride: int) -> jax.Array:
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


def _depthwise_kernel_gradient(x: jax.Array, kernel_shape: tuple, gradient: jax.Array, stride: int) -> jax.Array:
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


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)
