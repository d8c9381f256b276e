"""Parameters spread over activations, with gradients that are summed in float32."""

import functools

import jax
import jax.numpy as jnp


def spread(parameter: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """`parameter` in `shape`, as NumPy broadcasts, and in `dtype`.

    Its gradient is a sum over all the places that one number went to. JAX adds it up in `dtype`, XLA:GPU too: of a
    bias in bfloat16, over half a million rows, it was off by 1 %. Here it is added up in the parameter's float32.
    """
    return _spread(parameter, shape, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _spread(parameter, shape, dtype):
    return jnp.broadcast_to(parameter.astype(dtype), shape)


def _forward(parameter, shape, dtype):
    return _spread(parameter, shape, dtype), parameter  # of which the gradient needs the shape only


def _backward(shape, dtype, parameter, gradient):
    del dtype
    return jax.linear_transpose(lambda x: jnp.broadcast_to(x, shape), parameter)(gradient.astype(parameter.dtype))


_spread.defvjp(_forward, _backward)
