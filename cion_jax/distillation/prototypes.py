"""Softmax over many prototypes, in blocks: the logits `[n, prototypes]` are never in memory as a whole.

The loss needs one log-sum-exp per row of the student's logits, and one average of the student's prototypes per row of
the teacher's. `compare` computes both block by block over the prototypes, forward and backward; the backward pass
recomputes each block of logits. This is memory-efficient attention (Rabe and Staats, 2021; Dao et al., 2022) with
the teacher's prototypes as keys and the student's as values.

Matrix products take their inputs in the dtype of the vectors and accumulate in float32; everything else is float32.
If all prototypes fit in one block there is no loop, and XLA merges the recomputation with the first computation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cion_jax.runtime.platform import on_cpu


def _block_logits() -> int:
    """Logits of a block, for any batch size; with more rows, it has fewer prototypes.

    32 MiB of float32 on a CPU. On GPUs, where every block is some thirty launches, 256 MiB.
    """
    return 2**23 if on_cpu() else 2**26


class Logits(NamedTuple):
    """Logits l_ip = (x_i . w_p - c_p) / tau, computed on demand by blocks of prototypes.

    Vectors x are `[n, dim]`, prototypes w `[prototypes, dim]` and offsets c `[prototypes]`; w and c are float32.
    """

    vectors: jax.Array
    prototypes: jax.Array
    offset: jax.Array
    temperature: jax.typing.ArrayLike

    def block(self, start: jax.Array | int, size: int) -> jax.Array:
        """Logits of `size` prototypes from `start` on, `[n, size]`, float32."""
        prototypes = _take(self.prototypes, start, size).astype(self.vectors.dtype)
        return (_product("nd,pd->np", self.vectors, prototypes) - _take(self.offset, start, size)) / self.temperature


class Comparison(NamedTuple):
    """Results of `compare`, float32.

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
    """Computes a `Comparison`; `log_partition` and `averages` are differentiable in the student's arrays."""
    return _compare(student, teacher)[0]


def _compare(student: Logits, teacher: Logits) -> tuple[Comparison, jax.Array]:
    """The comparison and the log partition of the teacher's rows, `[m]`."""
    largest = tuple(jnp.full(len(x.vectors), -jnp.inf) for x in (student, teacher))
    total = tuple(jnp.zeros(len(x.vectors)) for x in (student, teacher))

    def add_to_partition(carry, start, size: int):
        parts = zip(carry, (student, teacher))
        return tuple(_add_exp(largest, total, x.block(start, size)) for (largest, total), x in parts)

    sums = _over_blocks(add_to_partition, tuple(zip(largest, total)), student, teacher)
    student_partition, teacher_partition = (largest + jnp.log(total) for largest, total in sums)

    def add_to_average(carry, start, size: int):
        averages, mean, entropy = carry
        log_q = teacher.block(start, size) - teacher_partition[:, None]
        q = jnp.exp(log_q)
        prototypes = _take(student.prototypes, start, size).astype(teacher.vectors.dtype)
        averages += _product("mp,pd->md", q.astype(prototypes.dtype), prototypes)
        return averages, _put(mean, q.mean(0), start), entropy - (q * log_q).sum(-1).mean()

    rows, (prototypes, dim) = len(teacher.vectors), student.prototypes.shape
    zeros = jnp.zeros((rows, dim)), jnp.zeros(prototypes), jnp.zeros([])
    return Comparison(student_partition, *_over_blocks(add_to_average, zeros, student, teacher)), teacher_partition


def _add_exp(largest: jax.Array, total: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Adds exp(logits) to row sums stored as total * exp(largest), so that no exponential overflows."""
    new = jnp.maximum(largest, logits.max(-1))
    return new, total * jnp.exp(largest - new) + jnp.exp(logits - new[:, None]).sum(-1)


def _compare_forward(student: Logits, teacher: Logits):
    comparison, teacher_partition = _compare(student, teacher)
    return comparison, (student, teacher, comparison.log_partition, teacher_partition)


def _compare_backward(saved: Any, gradient: Comparison):
    """Gradients for the student's vectors x_n and prototypes w_p, given those of the results.

    With l_np = (x_n . w_p - c_p) / tau the student's logits, s_np = exp(l_np - L_n) their softmax and q_mp the
    teacher's, which does not depend on the student, the results and their derivatives are

        L_n = log sum_p exp(l_np)       dL_n / dx_n = sum_p s_np w_p / tau,     dL_n / dw_p = s_np x_n / tau
        A_m = sum_p q_mp w_p            dA_m / dw_p = q_mp I.

    So, for incoming gradients g_n of L_n (`log_partition`) and G_m of A_m (`averages`), by the chain rule

        gradient of x_n = sum_p (g_n / tau) s_np w_p
        gradient of w_p = sum_n (g_n / tau) s_np x_n + sum_m q_mp G_m.

    `mean` and `entropy` depend on the teacher only. The teacher, the offsets and the temperatures get no gradient.
    """
    student, teacher, student_partition, teacher_partition = saved
    dtype = student.vectors.dtype
    by_row = (gradient.log_partition / student.temperature)[:, None]
    by_average = gradient.averages.astype(dtype)

    def add_block(carry, start, size: int):
        vectors, prototypes = carry
        weights = (jnp.exp(student.block(start, size) - student_partition[:, None]) * by_row).astype(dtype)
        q = jnp.exp(teacher.block(start, size) - teacher_partition[:, None]).astype(dtype)
        vectors += _product("np,pd->nd", weights, _take(student.prototypes, start, size).astype(dtype))
        block = _product("np,nd->pd", weights, student.vectors) + _product("mp,md->pd", q, by_average)
        return vectors, _put(prototypes, block, start)

    zeros = jnp.zeros(student.vectors.shape), jnp.zeros(student.prototypes.shape)
    vectors, prototypes = _over_blocks(add_block, zeros, student, teacher)
    return Logits(vectors.astype(dtype), prototypes, None, None), None  # pyright: ignore[reportArgumentType]


compare.defvjp(_compare_forward, _compare_backward)


def _over_blocks(add_block: Callable[[Any, Any, int], Any], carry: Any, student: Logits, teacher: Logits) -> Any:
    """Folds `add_block(carry, first prototype, block size)` over all prototypes; the last block may be shorter."""
    prototypes = len(student.prototypes)
    rows = len(student.vectors) + len(teacher.vectors)
    blocks = -(-rows * prototypes // _block_logits())
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
