"""Upper bounds on similarities at a fraction of the arithmetic, which rule out most pairs.

For unit vectors a and b, cut in two after k of their d numbers,

    a . b  <=  a[:k] . b[:k] + |a[k:]| |b[k:]|          (Cauchy-Schwarz)

and the right side is itself a product, of k + 1 numbers. One more adds what rounding may hide of it, slack_a and
slack_b, and a constant c: (1 + slack_a / c) (1 + slack_b / c) c >= c + slack_a + slack_b. A pair of which this bound
is below 1 - sigma + c is farther apart than sigma; any other is a candidate. The k are those that hold most of
the vectors' energy.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cion_jax.correlation.engine import rounding
from cion_jax.correlation.engine.centroids import Vectors
from cion_jax.correlation.engine.distances import squared_lengths
from cion_jax.runtime.platform import on_cpu

_SHARES = (1 / 4, 1 / 3, 1 / 2, 2 / 3)  # of d that are tried as k
_SAMPLE = 256
_LARGEST_SLACK = 4.0  # more than any two similarities differ
_ROWS_AT_ONCE = 2**12  # in the cache of a CPU
_ALIGNMENT = 64  # bytes
_COLUMNS = 32  # whose multiples a matrix product likes, as do aligned reads
CONSTANT = 2.0**-7  # c; a power of two that is large beside the slack of most, small beside a similarity


class Screen(NamedTuple):
    """Dimensions `head` `[k]` that are multiplied; the others are only bounded."""

    head: np.ndarray

    def factors(self, vectors: Vectors, room: int = 0) -> jax.Array:
        """Factors `[n + room, m]` whose products are the bounds; the last `room` rows are zeros.

        The first k + 2 columns count; zeros fill them up to m, a multiple of 32, so that rows are aligned on a GPU.
        """
        # Products of bfloat16 are many times faster than float32's where there are tensor cores.
        dtype, error = jnp.float32, 0.0
        if not on_cpu():
            dtype, error = jnp.bfloat16, rounding.bfloat16_error()
        used = len(self.head) + 2
        factors = _aligned_zeros((len(vectors) + room, used if on_cpu() else -(-used // _COLUMNS) * _COLUMNS))
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            rows = slice(start, min(start + _ROWS_AT_ONCE, len(vectors)))
            self._fill(factors[rows, :used], vectors[rows], np.float32(error / 2))
        return jax.device_put(factors.astype(dtype, copy=False))

    def _fill(self, factors: np.ndarray, vectors: Vectors, error: np.float32) -> None:
        # With mode="clip", NumPy takes columns several times faster than by its default; all of them are there.
        multiplied = np.take(vectors.rows, self.head, axis=1, mode="clip")
        multiplied *= vectors.scale[:, None]
        factors[:, :-2] = multiplied
        # The lengths of the rest, seen from above: what is left of 1, and what may be lost in this subtraction.
        lost = (2 * vectors.rows.shape[1] + 16) * rounding.FLOAT32
        factors[:, -2] = np.sqrt(1 + lost - squared_lengths(multiplied))
        slack = np.minimum(vectors.slack + error, _LARGEST_SLACK)
        # Whatever it is rounded to, it is not less.
        factors[:, -1] = CONSTANT**0.5 * (1 + slack / CONSTANT) * (1 + 4 * rounding.BFLOAT16)


def choose(rows: Vectors, columns: Vectors, sigma: float) -> Screen:
    """The cheapest screen on a sample of the pairs; results do not depend on the choice.

    The cost of a screen is its k, and the pairs it lets through: looking at one alone costs as much as all
    d products of hundreds on a CPU, and of many more where its numbers must come from the device.
    """
    a, b = (_sample(vectors) for vectors in (rows, columns))
    dim, order = a.shape[1], np.argsort(-(np.square(a).sum(0) + np.square(b).sum(0)), kind="stable")
    a, b = a[:, order], b[:, order]
    alone = 100 if on_cpu() else 100_000
    sizes, costs = [*_sizes(dim), dim], []
    for k in sizes:
        rest = (np.linalg.norm(x[:, k:], axis=1) for x in (a, b))
        passed = a[:, :k] @ b[:, :k].T + np.outer(*rest) >= 1 - sigma
        costs.append(k / dim + alone * passed.mean())
    return Screen(np.sort(order[: sizes[int(np.argmin(costs))]]))


def _sizes(dim: int) -> list[int]:
    """Candidate values of k, such that factors have a multiple of `_COLUMNS` columns."""
    return [k for share in _SHARES if 0 < (k := -(-int(share * dim) // _COLUMNS) * _COLUMNS - 2) < dim]


def _sample(vectors: Vectors) -> np.ndarray:
    chosen = np.linspace(0, len(vectors) - 1, min(_SAMPLE, len(vectors))).astype(np.int64)
    return vectors.directions(chosen)


def _aligned_zeros(shape: tuple[int, int]) -> np.ndarray:
    """Float32 zeros, aligned such that JAX uses the array on a CPU without a copy."""
    zeros = np.zeros(shape[0] * shape[1] + _ALIGNMENT // 4, np.float32)
    first = -zeros.ctypes.data % _ALIGNMENT // 4
    return zeros[first:][: shape[0] * shape[1]].reshape(shape)
