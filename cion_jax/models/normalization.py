"""L2 normalisation inside networks and losses."""

import jax
import jax.numpy as jnp

_SHORTEST = 1e-12


def l2_normalize(x: jax.Array, axis: int = -1) -> jax.Array:
    """`x / max(||x||, 1e-12)` along `axis`, in float32 at least, as PyTorch's `normalize`: zeros stay zeros.

    Training must survive a zero vector. Features that are stored or compared (`features`, `evaluation`, `correlation`)
    are divided by their length alone: there a zero vector is an error, found by the NaN that it becomes.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x / jnp.maximum(jnp.linalg.norm(x, axis=axis, keepdims=True), _SHORTEST)
