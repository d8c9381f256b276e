"""Channel attention, for the families that have it.

"Squeeze-and-Excitation Networks" (CVPR 2018).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.models.backend.broadcast import spread
from cion_jax.models.layers import Conv


def squeeze_excite(x: jax.Array, reduce: Conv, expand: Conv, gate: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """`x * gate(expand(ReLU(reduce(mean of x))))`, `[b, h, w, c]`, the mean over positions.

    Not a module: families name the two 1x1 convolutions differently.
    """
    squeezed = jnp.mean(x, axis=(1, 2), keepdims=True)
    scale = gate(expand(nnx.relu(reduce(squeezed))))
    # in float32, for its gradient is a sum over all positions
    return x * spread(scale.astype(jnp.promote_types(x.dtype, jnp.float32)), x.shape, x.dtype)


def round_channels(features: float) -> int:
    """The multiple of 4 next to `features` (half-way up), at least 4, and never more than a tenth below it."""
    rounded = max(4, int(features + 2) // 4 * 4)
    return rounded + 4 if rounded < 0.9 * features else rounded


class SqueezeExcite(nnx.Module):
    """Channel attention with a quarter of the channels inside and a hard sigmoid, `[b, h, w, c]`."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        hidden = round_channels(features / 4)
        self.conv_reduce = Conv(features, hidden, 1, rngs=rngs)
        self.conv_expand = Conv(hidden, features, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return squeeze_excite(x, self.conv_reduce, self.conv_expand, jax.nn.hard_sigmoid)
