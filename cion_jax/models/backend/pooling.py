"""Max pooling whose backward pass needs no atomic additions on a GPU."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.models.backend.windows import taps
from cion_jax.runtime.platform import on_cpu


def max_pool(x: jax.Array, size: int, stride: int) -> jax.Array:
    """The largest of every `size` x `size` window, `[b, h, w, c]`; of equal ones, the first has the gradient."""
    return (_standard if on_cpu() else _pooled)(x, size, stride)


def _standard(x: jax.Array, size: int, stride: int) -> jax.Array:
    return nnx.max_pool(x, window_shape=(size, size), strides=(stride, stride))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _pooled(x: jax.Array, size: int, stride: int) -> jax.Array:
    return _standard(x, size, stride)


def _forward(x, size, stride):
    return _pooled(x, size, stride), x


def _backward(size, stride, x, gradient):
    """The derivative of the same maximum taken tap by tap: comparisons and shifted sums instead of a scatter."""

    def larger(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(b > a, b, a)

    _, backward = jax.vjp(lambda x: functools.reduce(larger, taps(x, (size, size), stride, 0)), x)
    return backward(gradient)


_pooled.defvjp(_forward, _backward)
