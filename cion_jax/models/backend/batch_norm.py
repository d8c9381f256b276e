"""Normalisation by the statistics of the batch: one pass over the batch and one all-reduce each way."""

import functools

import jax
import jax.numpy as jnp
from jax import lax


def normalize_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, shift: jax.Array, epsilon: float, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises every channel of `x` `[..., c]` by its mean and biased variance over all devices along `axis_name`.

        y = (x - E[x]) / sqrt(Var[x] + epsilon) * scale + bias
        Var[x] = E[(x - s)^2] - (E[x] - s)^2

    Both moments of x - s come from one pass. Subtracting squares loses (E[x] - s)^2 / Var[x] units of rounding, so that
    s must be near the mean: on each device it is the channel's first value. To join the moments of all devices in one
    all-reduce takes an s that is the same for all, and that is the `shift`: the running mean is near as well.

    The derivative is written out, since JAX's reads x several times more and sums twice what is zero. With the
    normalised n = (x - E[x]) / sqrt(Var[x] + epsilon) and the gradient g of y,

        gradient of x = (g - E[g] - n E[g n]) scale / sqrt(Var[x] + epsilon)
        gradient of scale = sum g n,    of bias = sum g                      on one device

    Args:
        x: activations.
        scale, bias, shift: `[c]` float32.
        epsilon: added to the variance.
        axis_name: mesh axis that the moments are averaged over, inside `shard_map`; None for one device.

    Returns:
        y in the dtype of x; mean and variance `[c]` float32, for which there is no gradient.
    """
    return _normalize(x, scale, bias, shift, epsilon, axis_name)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _normalize(x, scale, bias, shift, epsilon, axis_name):
    return _forward(x, scale, bias, shift, epsilon, axis_name)[0]


def _forward(x, scale, bias, shift, epsilon, axis_name):
    mean, variance = _moments(x)
    if axis_name is not None:
        distance = mean - shift
        distance, square = lax.pmean((distance, variance + jnp.square(distance)), axis_name)
        mean, variance = shift + distance, _variance(square, distance)
    factor = lax.rsqrt(variance + epsilon)
    y = ((_wide(x) - mean) * (factor * scale) + bias).astype(x.dtype)
    return (y, mean, variance), (x, scale, mean, factor)


def _backward(epsilon, axis_name, residuals, gradients):
    del epsilon
    x, scale, mean, factor = residuals
    gradient = _wide(gradients[0])
    normal = (_wide(x) - mean) * factor
    count, axes = x.size // x.shape[-1], tuple(range(x.ndim - 1))
    by_bias, by_scale = own = jnp.mean(gradient, axes), jnp.mean(gradient * normal, axes)
    if axis_name is not None:
        by_bias, by_scale = lax.pmean(own, axis_name)
    to_x = (gradient - by_bias - normal * by_scale) * (factor * scale)
    return to_x.astype(x.dtype), count * own[1], count * own[0], jnp.zeros_like(mean)


_normalize.defvjp(_forward, _backward)


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of every channel, `[c]`, from one pass."""
    axes = tuple(range(x.ndim - 1))
    first, x = _wide(x[(0,) * len(axes)]), _wide(x)
    distance, square = jnp.mean(x - first, axes), jnp.mean(jnp.square(x - first), axes)
    return first + distance, _variance(square, distance)


def _variance(square: jax.Array, distance: jax.Array) -> jax.Array:
    """Var[x] from E[(x - s)^2] and E[x] - s."""
    return jnp.maximum(square - jnp.square(distance), 0)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
