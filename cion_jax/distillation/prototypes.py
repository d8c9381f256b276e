"""Softmax over many prototypes, in blocks: the logits `[n, prototypes]` are never in memory as a whole.

All that the loss needs of the student's logits is one log-sum-exp per row, and of the teacher's one average of the
student's prototypes per row. `compare` goes over the prototypes block by block for both, forward and backward, and
the backward pass computes each block of logits again. It is attention with prototypes as keys and values (Rabe and
Staats, 2021; Dao et al., 2022), but for the values being another network's.

Products take their inputs in the dtype of the vectors and add up in float32; everything else is float32. If all
prototypes fit one block there is no loop, and XLA merges the second computation with the first.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Logits in a block: 32 MiB of float32, whatever the batch. The more rows, the fewer prototypes.
_BLOCK_LOGITS = 2**23


class Logits(NamedTuple):
    """l_ip = (x_i . w_p - c_p) / tau, not computed yet.

    Vectors x are `[n, dim]`, prototypes w `[prototypes, dim]` and offsets c `[prototypes]`, both float32.
    """

    vectors: jax.Array
    prototypes: jax.Array
    offset: jax.Array
    temperature: jax.typing.ArrayLike

    def block(self, start: jax.Array | int, size: int) -> jax.Array:
        """Those of `size` prototypes, `[n, size]`, float32."""
        some = _take(self.prototypes, start, size).astype(self.vectors.dtype)
        return (_product("nd,pd->np", self.vectors, some) - _take(self.offset, start, size)) / self.temperature


class Comparison(NamedTuple):
    """The results of `compare`, float32.

    `log_partition` `[n]` is log sum_p exp(l_ip) of the student's rows. `averages` `[m, dim]` are
    sum_p q_ip w_p, with q the softmax of the teacher's rows and w the *student's* prototypes. `mean`
    `[prototypes]` is the mean of q over rows and `entropy` `[]` the mean of their entropies, in nats.
    """

    log_partition: jax.Array
    averages: jax.Array
    mean: jax.Array
    entropy: jax.Array


@jax.custom_vjp
def compare(student: Logits, teacher: Logits) -> Comparison:
    """See `Comparison`. Gradients flow from the first two results into the student's vectors and prototypes."""
    return _compare(student, teacher)[0]


def _compare(student: Logits, teacher: Logits) -> tuple[Comparison, jax.Array]:
    """The comparison, and the teacher's log partition."""
    largest = tuple(jnp.full(len(x.vectors), -jnp.inf) for x in (student, teacher))
    total = tuple(jnp.zeros(len(x.vectors)) for x in (student, teacher))

    def add_to_partition(carry, start, size: int):
        parts = zip(carry, (student, teacher))
        return tuple(_add_exp(largest, total, x.block(start, size)) for (largest, total), x in parts)

    sums = _over_blocks(add_to_partition, tuple(zip(largest, total)), student, teacher)
    of_student, of_teacher = (largest + jnp.log(total) for largest, total in sums)

    def add_to_average(carry, start, size: int):
        averages, mean, entropy = carry
        log_q = teacher.block(start, size) - of_teacher[:, None]
        q = jnp.exp(log_q)
        some = _take(student.prototypes, start, size).astype(teacher.vectors.dtype)
        averages += _product("mp,pd->md", q.astype(some.dtype), some)
        return averages, _put(mean, q.mean(0), start), entropy - (q * log_q).sum(-1).mean()

    rows, (prototypes, dim) = len(teacher.vectors), student.prototypes.shape
    nothing = jnp.zeros((rows, dim)), jnp.zeros(prototypes), jnp.zeros([])
    return Comparison(of_student, *_over_blocks(add_to_average, nothing, student, teacher)), of_teacher


def _add_exp(largest: jax.Array, total: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Adds exp(logits) to sums that are kept as total * exp(largest)."""
    new = jnp.maximum(largest, logits.max(-1))
    return new, total * jnp.exp(largest - new) + jnp.exp(logits - new[:, None]).sum(-1)


def _compare_forward(student: Logits, teacher: Logits):
    comparison, of_teacher = _compare(student, teacher)
    return comparison, (student, teacher, comparison.log_partition, of_teacher)


def _compare_backward(saved: Any, gradient: Comparison):
    student, teacher, of_student, of_teacher = saved
    dtype = student.vectors.dtype
    by_row = (gradient.log_partition / student.temperature)[:, None]
    by_average = gradient.averages.astype(dtype)

    def add_block(carry, start, size: int):
        vectors, prototypes = carry
        weights = (jnp.exp(student.block(start, size) - of_student[:, None]) * by_row).astype(dtype)
        q = jnp.exp(teacher.block(start, size) - of_teacher[:, None]).astype(dtype)
        vectors += _product("np,pd->nd", weights, _take(student.prototypes, start, size).astype(dtype))
        some = _product("np,nd->pd", weights, student.vectors) + _product("mp,md->pd", q, by_average)
        return vectors, _put(prototypes, some, start)

    nothing = jnp.zeros(student.vectors.shape), jnp.zeros(student.prototypes.shape)
    vectors, prototypes = _over_blocks(add_block, nothing, student, teacher)
    return Logits(vectors.astype(dtype), prototypes, None, None), None  # pyright: ignore[reportArgumentType]


compare.defvjp(_compare_forward, _compare_backward)


def _over_blocks(add_block: Callable[[Any, Any, int], Any], carry: Any, student: Logits, teacher: Logits) -> Any:
    """Folds `add_block(carry, first prototype, how many)` over all prototypes; the last block may be shorter."""
    prototypes = len(student.prototypes)
    rows = len(student.vectors) + len(teacher.vectors)
    blocks = -(-rows * prototypes // _BLOCK_LOGITS)
    size = -(-prototypes // blocks // 128) * 128  # whole tiles of a matrix unit
    if size >= prototypes:
        return add_block(carry, 0, prototypes)
    whole, left = divmod(prototypes, size)
    carry = lax.fori_loop(0, whole, lambda index, carry: add_block(carry, index * size, size), carry)
    return add_block(carry, whole * size, left) if left else carry


def _product(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)


def _take(array: jax.Array, start: jax.Array | int, size: int) -> jax.Array:
    return lax.dynamic_slice_in_dim(array, start, size)


def _put(array: jax.Array, part: jax.Array, start: jax.Array | int) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(array, part, start, 0)
