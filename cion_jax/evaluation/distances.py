"""Cosine distances of unit features, computed in blocks of rows so that memory does not grow with their number."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

BLOCK_BYTES = 2**28  # of distances per block: smaller matrix products are slower


def blocks(rows: int, columns: int) -> list[np.ndarray]:
    """Splits `rows` into near-equal ranges whose float32 distances to `columns` take at most `BLOCK_BYTES`."""
    largest = max(1, BLOCK_BYTES // (4 * columns))
    return np.array_split(np.arange(rows), -(-rows // largest))


def unit_rows(features: np.ndarray) -> jax.Array:
    """Copies features `[rows, dim]` to the device as float32, with each row scaled to unit length."""
    return _normalised(jnp.array(features, jnp.float32, copy=True))


@partial(jax.jit, donate_argnums=0)
def _normalised(features: jax.Array) -> jax.Array:
    return features / jnp.linalg.norm(features, axis=1, keepdims=True)


@jax.jit
def cosine_distances(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Cosine distances, 1 - cosine, of unit features `[p, dim]` and `[q, dim]`: `[p, q]`, in full float32 precision."""
    return 1 - jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)
