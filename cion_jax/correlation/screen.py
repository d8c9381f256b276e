"""Upper bounds on similarities, at a fraction of the arithmetic: most pairs are so far apart that these do.

For unit vectors a and b, cut in two after k of their d numbers,

    a . b  <=  a[:k] . b[:k] + |a[k:]| |b[k:]|          (Cauchy-Schwarz)

and the right side is itself a product, of k + 1 numbers. Two numbers more add what rounding may hide of it:
(slack_a, 1) . (1, slack_b). A pair of which this bound is below 1 - sigma is farther apart than sigma; any other
has to be looked at. The k are those that hold most of the vectors' energy.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cion_jax.correlation import rounding
from cion_jax.correlation.centroids import Vectors

_SHARES = (1 / 4, 1 / 3, 1 / 2, 2 / 3)  # of d that are tried as k
_SAMPLE = 256
_LARGEST_SLACK = 4.0  # more than any two similarities differ


class Screen(NamedTuple):
    """Which `[k]` of the numbers of a vector are multiplied; the others are only bounded."""

    head: np.ndarray

    def factors(self, vectors: Vectors) -> tuple[jax.Array, jax.Array]:
        """The first and the second factors of the bounds, `[n, k + 3]` each."""
        # Products of bfloat16 are many times faster than float32's where there are tensor cores.
        dtype, error = jnp.float32, 0.0
        if jax.default_backend() != "cpu":
            dtype, error = jnp.bfloat16, rounding.bfloat16_error()
        slack = np.minimum(np.asarray(vectors.slack) + np.float32(error / 2), _LARGEST_SLACK)
        return _factors(vectors.directions, slack, self.head, dtype)


@functools.partial(jax.jit, static_argnums=3)
def _factors(directions: Any, slack: Any, head: Any, dtype: Any) -> tuple[jax.Array, jax.Array]:
    multiplied = directions[:, head]
    # The lengths of the rest, seen from above: what is left of 1, and what may be lost in this subtraction.
    lost = (2 * directions.shape[1] + 16) * rounding.FLOAT32
    rest = jnp.sqrt(1 + lost - jnp.square(multiplied).sum(1))
    slack = slack * (1 + 4 * rounding.BFLOAT16)  # whatever it is rounded to, it is not less
    one = jnp.ones_like(slack)
    first, second = ([multiplied, rest, *last] for last in ((slack, one), (one, slack)))
    return jnp.column_stack(first).astype(dtype), jnp.column_stack(second).astype(dtype)


def choose(rows: Vectors, columns: Vectors, sigma: float) -> Screen:
    """The screen that costs least on a sample of the pairs; what is found does not depend on it.

    The cost of a screen is its k, and the pairs it lets through: looking at one alone costs as much as all
    d products of hundreds on a CPU, and of many more where its numbers must come from the device.
    """
    a, b = (_sample(vectors) for vectors in (rows, columns))
    dim, order = a.shape[1], np.argsort(-(np.square(a).sum(0) + np.square(b).sum(0)), kind="stable")
    a, b = a[:, order], b[:, order]
    alone = 100 if jax.default_backend() == "cpu" else 100_000
    sizes, costs = [*_sizes(dim), dim], []
    for k in sizes:
        rest = (np.linalg.norm(x[:, k:], axis=1) for x in (a, b))
        passed = a[:, :k] @ b[:, :k].T + np.outer(*rest) >= 1 - sigma
        costs.append(k / dim + alone * passed.mean())
    return Screen(order[: sizes[int(np.argmin(costs))]])


def _sizes(dim: int) -> list[int]:
    """Those k for which the factors are multiples of 32 long."""
    return [k for share in _SHARES if 0 < (k := -(-int(share * dim) // 32) * 32 - 3) < dim]


def _sample(vectors: Vectors) -> np.ndarray:
    chosen = np.linspace(0, len(vectors) - 1, min(_SAMPLE, len(vectors))).astype(np.int64)
    return np.asarray(vectors.directions)[chosen]
