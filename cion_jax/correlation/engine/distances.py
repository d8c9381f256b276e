"""Cosine distances, and the conventions of every decision.

    dist(x, c) = 1 - x . c / (|x| |c|),  clipped to [0, 2]

1. *Final decisions are made in float64.* Devices compute in float32 (or less). Decisions that their rounding, bounded
   in `rounding`, could change are made again in float64 from the images themselves. So identities don't depend on
   the device, nor on how the work is cut into batches or spread over devices and processes.
2. *Ties.* In float64, distances within `TIE` of each other or of a threshold are equal to it; among equals the
   lowest row (or tracklet) wins.
3. *No direction.* Features that cancel out have no direction: the distance to their centroid is 1.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from cion_jax.runtime.arrays import RowArray

TIE = 1e-9
SHORTEST_SUM = 1e-6  # unit features whose sum is shorter than this have cancelled out

_BLOCK_BYTES = 4 * 2**20  # of float32 images; small enough that the allocator reuses the memory


@jax.jit
def unit(features: Any) -> jax.Array:
    """L2-normalises `[..., d]` features, in float32 or, given float64, in that."""
    features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


def exact_unit(features: np.ndarray) -> np.ndarray:
    """`unit` in float64 on the host."""
    features = features.astype(np.float64)
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def squared_lengths(rows: np.ndarray) -> np.ndarray:
    """Squared lengths `[k]` of `rows` `[k, d]`, without a temporary array of squares."""
    return np.einsum("kd,kd->k", rows, rows)


def directions(sums: np.ndarray) -> np.ndarray:
    """Unit vectors along `[k, d]` sums of unit features, which is all that distances need of a centroid."""
    return sums / np.maximum(np.sqrt(squared_lengths(sums)), SHORTEST_SUM)[:, None]


def similarities(a: jax.Array, b: jax.Array) -> jax.Array:
    """Products `[p, q]` of the rows of `a` `[p, d]` and `b` `[q, d]`, in at least float32 on every device."""
    return jnp.matmul(
        a,
        b.T,
        precision=None if a.dtype == jnp.bfloat16 else jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.promote_types(a.dtype, jnp.float32),
    )


def distance(similarity: Any) -> Any:
    """Cosine distance of a similarity of unit vectors."""
    return (1 - similarity).clip(0, 2)


def row_blocks(
    features: RowArray, function: Callable[[np.ndarray], jax.Array] = unit
) -> Iterator[tuple[slice, np.ndarray]]:
    """Reads `[n, d]` features once, in order, in bounded memory: blocks (rows, `function` of their features)."""
    size = max(1, _BLOCK_BYTES // (4 * features.shape[1]))
    for start in range(0, len(features), size):
        rows = slice(start, min(start + size, len(features)))
        yield rows, np.asarray(function(features[rows]))


def sums_by_label(labels: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Sums `[count, d]` of those `rows` `[m, d]` that share a label; `labels` `[m]` are 0 to count - 1."""
    entries = (np.ones(len(rows), rows.dtype), (labels, np.arange(len(rows))))
    return sparse.csr_array(entries, shape=(count, len(rows))) @ rows


def add_rows(sums: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> None:
    """Adds each of the `rows` `[m, d]` to the row of `sums` `[k, d]` that `labels` `[m]` names, in place."""
    present, position = np.unique(labels, return_inverse=True)
    sums[present] += sums_by_label(position, rows, len(present))


def merge_rows(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Sums `[k, d]` of the `rows` `[m, d]` that share a label, in the memory of `rows`, whose values are lost.

    `labels` `[m]` are numbered from 0 by first row. So none is above its row's index, and a sum never replaces a row
    that is still to be read.
    """
    count = 0
    size = max(1, _BLOCK_BYTES // (4 * rows.shape[1]))
    for start in range(0, len(rows), size):
        own, block = labels[start : start + size], rows[start : start + size].copy()
        new = max(count, own.max() + 1)
        rows[count:new] = 0
        add_rows(rows, own, block)
        count = new
    return rows[:count]
