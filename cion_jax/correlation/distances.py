"""Cosine distances in float32, sums of features, and the two conventions that every decision rests on.

    dist(x, c) = 1 - x . c / (|x| |c|),  clipped to [0, 2]

1. *Ties.* Distances closer to each other than `TIE` count as equal, and the lowest row (or tracklet) wins. A
   real tie, such as between the two images of a two-image tracklet, would otherwise be decided by rounding.
2. *No direction.* Features that cancel out have no direction: the distance to their centroid is 1.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

TIE = 5e-6  # float32 products of 768-d unit vectors are off by up to 2e-6 (XLA on CPU)
SHORTEST_SUM = 1e-3  # unit features whose sum is shorter than this have cancelled out

_BLOCK_BYTES = 32 * 2**20


@jax.jit
def unit(features: jax.Array) -> jax.Array:
    """L2-normalises `[..., d]` features, in float32."""
    features = features.astype(jnp.float32)
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


def directions(sums: np.ndarray) -> np.ndarray:
    """Unit vectors along `[k, d]` sums of unit features, which is all that distances need of a centroid."""
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return sums / np.maximum(length, SHORTEST_SUM)


def similarities(a: jax.Array, b: jax.Array) -> jax.Array:
    """Products `[p, q]` of the rows of `a` `[p, d]` and `b` `[q, d]`, in full float32 on every device."""
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)


def distance(similarity: jax.Array) -> jax.Array:
    """Cosine distance of a similarity of unit vectors."""
    return jnp.clip(1 - similarity, 0, 2)


def row_blocks(features: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Reads `[n, d]` features once, in order, in bounded memory: blocks (rows, unit features in float32)."""
    size = max(1, _BLOCK_BYTES // (4 * features.shape[1]))
    for start in range(0, len(features), size):
        rows = slice(start, min(start + size, len(features)))
        yield rows, np.asarray(unit(features[rows]))


def add_rows(sums: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> None:
    """Adds each of the `rows` `[m, d]` to the row of `sums` `[k, d]` that `labels` `[m]` names, in place."""
    present, position = np.unique(labels, return_inverse=True)
    entries = (np.ones(len(rows), rows.dtype), (position, np.arange(len(rows))))
    selection = sparse.csr_array(entries, shape=(len(present), len(rows)))
    sums[present] += selection @ rows
