"""Kernel gradients of depthwise convolutions on small maps, as matrix products, for accelerators."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cion_jax.models.backend.windows import standard


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_on_small_maps(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Depthwise convolution of `[b, h, w, c]` with `[size, size, 1, c]`, for maps of a few dozen positions."""
    return standard(x, kernel, stride, padding, x.shape[-1])


def _forward(x, kernel, stride, padding):
    return depthwise_on_small_maps(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, residuals, gradient):
    x, kernel = residuals
    (to_x,) = jax.linear_transpose(lambda x: standard(x, kernel, stride, padding, x.shape[-1]), x)(gradient)
    return to_x, _kernel_gradient(x, kernel.shape, gradient, stride, padding)


depthwise_on_small_maps.defvjp(_forward, _backward)


def _kernel_gradient(x: jax.Array, shape: tuple, gradient: jax.Array, stride: int, padding: int) -> jax.Array:
    """K[i, j, c] = sum over b, h, w of x[b, h stride + i - padding, w stride + j - padding, c] gradient[b, h, w, c].

    All pairs of an input and an output position are multiplied, one product over b per channel, and those of one
    offset (i, j) added up: fewer multiplications than taps of the kernel, most of which see nothing but padding.
    """
    (b, rows, columns, c), outputs = x.shape, gradient.shape[1:3]
    pairs = jnp.einsum(
        "bpc,bqc->cpq", x.reshape(b, -1, c), gradient.reshape(b, -1, c), preferred_element_type=jnp.float32
    )
    chosen = jnp.asarray(_pairs_of_taps(shape[:2], (rows, columns), outputs, stride, padding))
    summed = jnp.einsum("tpq,cpq->tc", chosen, pairs, precision=lax.Precision.HIGHEST)
    return summed.reshape(shape).astype(x.dtype)


@functools.cache
def _pairs_of_taps(size: tuple, inputs: tuple, outputs: tuple, stride: int, padding: int) -> np.ndarray:
    """1 where a kernel tap joins an input and an output position, `[taps, inputs, outputs]` float32."""

    def joins(axis: int) -> np.ndarray:
        tap, place, output = np.ogrid[: size[axis], : inputs[axis], : outputs[axis]]
        return (place == output * stride + tap - padding).astype(np.float32)

    joined = np.einsum("ipq,jrs->ijprqs", joins(0), joins(1))
    return joined.reshape(size[0] * size[1], inputs[0] * inputs[1], outputs[0] * outputs[1])
