"""One convolution for every layer, fast on CPU and on accelerators.

Accelerators run XLA's own convolution, forward and backward. XLA's CPU compiler is good at some convolutions
and far off at others (times of the standard form against the form used here, two CPU cores):

- kernel gradients: up to 5x slower than one matrix product per kernel tap;
- small output maps and kernels that do not overlap (1x1, patch embeddings): up to 15x slower than one matrix
  product of the unfolded patches;
- depthwise, forward and input gradient: 15-40x slower than a sum of shifted products.

The choice is made when a function is traced, from `jax.default_backend()` and static shapes. Every form
computes the same sums; they differ in rounding only.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Up to this many output positions the unfolded patches stay in cache, and one matrix product wins.
_SMALL_MAP = 64


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
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
    if jax.default_backend() != "cpu":
        return _standard(x, kernel, stride, padding, groups)
    if groups == 1:
        rows, columns = _output_size(x.shape, kernel.shape, stride, padding)
        if len(kernel) <= stride or rows * columns <= _SMALL_MAP:
            return _unfolded(x, kernel, stride, padding)
        return _dense(x, kernel, stride, padding)
    if groups == x.shape[-1]:
        # every channel once for each of its outputs, which lie beside each other
        repeated = jnp.repeat(x, kernel.shape[-1] // groups, axis=-1)
        return _depthwise(repeated, kernel, stride, padding)
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
    """What every kernel position sees of `x`: size * size arrays `[b, rows, columns, c]`."""
    rows, columns = _output_size(x.shape, kernel_shape, stride, padding)
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    spans = (rows - 1) * stride + 1, (columns - 1) * stride + 1
    return [
        lax.slice(x, (0, i, j, 0), (len(x), i + spans[0], j + spans[1], x.shape[-1]), (1, stride, stride, 1))
        for i, j in np.ndindex(*kernel_shape[:2])
    ]


def _patches(x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
    """Square windows of `x`, unfolded: `[b, rows, columns, size * size * c]`."""
    if size != stride or padding:
        return jnp.concatenate(taps(x, (size, size), stride, padding), axis=-1)
    b, rows, columns, c = len(x), x.shape[1] // size, x.shape[2] // size, x.shape[3]
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    products = map(jnp.multiply, taps(x, kernel.shape, stride, padding), kernel.reshape(-1, kernel.shape[-1]))
    return functools.reduce(jnp.add, products)


def _depthwise_forward(x, kernel, stride, padding):
    return _depthwise(x, kernel, stride, padding), (x, kernel)


def _depthwise_backward(stride, padding, residuals, gradient):
    x, kernel = residuals
    # Zeros between the gradient's positions make the case of any stride that of stride 1.
    between = (0, 0, stride - 1)
    gradient = lax.pad(gradient, jnp.zeros((), gradient.dtype), [(0, 0, 0), between, between, (0, 0, 0)])
    return (
        _depthwise_input_gradient(x.shape, kernel, gradient, padding),
        _depthwise_kernel_gradient(x, len(kernel), gradient, padding),
    )


def _depthwise_input_gradient(shape: tuple, kernel: jax.Array, gradient: jax.Array, padding: int) -> jax.Array:
    """A depthwise convolution with the flipped kernel, the gradient bordered so that `shape` comes out."""
    size = len(kernel)
    low = size - 1 - padding
    borders = [(low, shape[axis] + padding - gradient.shape[axis], 0) for axis in (1, 2)]
    bordered = lax.pad(gradient, jnp.zeros((), gradient.dtype), [(0, 0, 0), *borders, (0, 0, 0)])
    return _depthwise(bordered, kernel[::-1, ::-1], 1, 0)


def _depthwise_kernel_gradient(x: jax.Array, size: int, gradient: jax.Array, padding: int) -> jax.Array:
    """K[i, j, c] = sum over b, h, w of x[b, h + i, w + j, c] gradient[b, h, w, c], `[size, size, 1, c]`.

    For every kernel row i, one matrix product over b and h pairs all columns of `x` with all of the gradient;
    the pairs that are j apart are then summed. More arithmetic than one sum per (i, j), but XLA's CPU sums
    are three times slower.
    """
    rows, columns = gradient.shape[1:3]
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    pairs = jnp.stack([jnp.einsum("bhvc,bhwc->cvw", x[:, i : i + rows], gradient) for i in range(size)])
    apart = np.stack([np.eye(x.shape[2], columns, -j) for j in range(size)])
    return jnp.einsum("icvw,jvw->ijc", pairs, apart.astype(x.dtype))[:, :, None]


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)
