"""One convolution for every layer, fast on CPU and on accelerators.

XLA's CPU compiler is good at some convolutions and far off at others (times of the standard form against the form used
here, two CPU cores):

- kernel gradients: up to 5x slower than one matrix product per kernel tap;
- small output maps and kernels that do not overlap (1x1, patch embeddings): up to 15x slower than one matrix
  product of the unfolded patches;
- depthwise, forward and input gradient: 15-40x slower than a sum of shifted products; the kernel gradient is a
  loop over such sums.

Accelerators run XLA's own convolution, and all gradients but two. Where a kernel is larger than the map, as that of a
gradient may be, XLA takes the map for the kernel: the kernel gradients of an 8x8 patch projection on an 8x4 grid became
a convolution with 32 times the arithmetic, and those of depthwise convolutions on small maps one of 512 groups with a
single output each. Both are matrix products here.

The choice is made when a function is traced, for the platform of `cion_jax.runtime.platform` and from static shapes.
Every form computes the same sums; they differ in rounding only.
"""

import functools

import jax
import jax.numpy as jnp

from cion_jax.models.backend import depthwise, gradients
from cion_jax.models.backend.windows import output_size, patches, standard, taps
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
    return (_on_cpu if on_cpu() else _on_accelerator)(x, kernel, stride, padding, groups)


def _on_accelerator(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int) -> jax.Array:
    size, channels, outputs = len(kernel), x.shape[-1], kernel.shape[-1]
    if groups == 1 and size == stride > 1 and not padding:
        return _patchwise(x, kernel)
    if groups == channels == outputs and size > min(x.shape[1:3]):
        return gradients.depthwise_on_small_maps(x, kernel, stride, padding)
    return standard(x, kernel, stride, padding, groups)


def _on_cpu(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int) -> jax.Array:
    if groups == 1:
        rows, columns = output_size(x.shape, kernel.shape, stride, padding)
        if len(kernel) <= stride or rows * columns <= _SMALL_MAP:
            return _unfolded(x, kernel, stride, padding)
        return _dense(x, kernel, stride, padding)
    if groups == x.shape[-1]:
        return depthwise.convolve(x, kernel, stride, padding)
    return standard(x, kernel, stride, padding, groups)


def _unfolded(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    unfolded = patches(x, len(kernel), stride, padding)
    flat = unfolded.reshape(-1, unfolded.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
    return flat.reshape(*unfolded.shape[:-1], kernel.shape[-1])


@jax.custom_vjp
def _patchwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution whose windows do not overlap, with the gradients of `_unfolded`.

    The forward pass is not `_unfolded`: XLA:GPU then laid out all activations after it in the order of the patches.
    """
    return standard(x, kernel, len(kernel), 0)


def _patchwise_forward(x, kernel):
    return _patchwise(x, kernel), (x, kernel)


def _patchwise_backward(residuals, gradient):
    x, kernel = residuals
    _, backward = jax.vjp(lambda x, kernel: _unfolded(x, kernel, len(kernel), 0), x, kernel)
    return backward(gradient)


_patchwise.defvjp(_patchwise_forward, _patchwise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dense(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    return standard(x, kernel, stride, padding)


def _dense_forward(x, kernel, stride, padding):
    return standard(x, kernel, stride, padding), (x, kernel)


def _dense_backward(stride, padding, residuals, gradient):
    x, kernel = residuals
    (x_gradient,) = jax.linear_transpose(lambda x: standard(x, kernel, stride, padding), x)(gradient)
    flat = gradient.reshape(-1, gradient.shape[-1])
    products = [tap.reshape(-1, tap.shape[-1]).T @ flat for tap in taps(x, kernel.shape, stride, padding)]
    return x_gradient, jnp.stack(products).reshape(kernel.shape)


_dense.defvjp(_dense_forward, _dense_backward)
