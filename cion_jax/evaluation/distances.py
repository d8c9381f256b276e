"""Cosine distances of unit features, a block of rows at a time, so that memory does not grow with their number."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

BLOCK_BYTES = 2**28  # of distances at a time: products of fewer rows are slower


def blocks(rows: int, columns: int) -> list[np.ndarray]:
    """Cuts `rows` into runs of nearly one length, for which float32 distances to `columns` take `BLOCK_BYTES`."""
    most = max(1, BLOCK_BYTES // (4 * columns))
    return np.array_split(np.arange(rows), -(-rows // most))


def unit_rows(features: np.ndarray) -> jax.Array:
    """A copy of `[rows, dim]` features on the device: float32, each row of length 1."""
    return _normalised(jnp.array(features, jnp.float32, copy=True))


@partial(jax.jit, donate_argnums=0)
def _normalised(features: jax.Array) -> jax.Array:
    return features / jnp.linalg.norm(features, axis=1, keepdims=True)


@jax.jit
def cosine_distances(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """1 - cosine of unit features `[p, dim]` and `[q, dim]`, `[p, q]` float32 products at full precision."""
    return 1 - jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)
