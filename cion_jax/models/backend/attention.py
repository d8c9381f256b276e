"""Attention, fused into one kernel where cuDNN does that."""

from typing import Literal

import jax
import jax.numpy as jnp
from absl import logging

from cion_jax.runtime.platform import on_cpu

_FUSED = (jnp.bfloat16, jnp.float16)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """`softmax(q k^T / sqrt(d) + bias) v`, `[b, n, heads, d] -> [b, n, heads, d]`.

    The bias, where there is one, is `[b or 1, heads, n, n]`. On NVIDIA GPUs, attention in 16 bits without a bias runs
    in cuDNN, which never writes the logits to memory; any other in XLA.
    """
    if bias is None and q.dtype in _FUSED and not on_cpu():
        try:
            return padded(q, k, v, "cudnn")
        except (NotImplementedError, RuntimeError) as reason:  # an older GPU, another maker's, or no cuDNN
            logging.log_first_n(logging.WARNING, "attention runs in XLA, as cuDNN refuses it: %s", 1, reason)
    return jax.nn.dot_product_attention(q, k, v, bias)


def padded(q: jax.Array, k: jax.Array, v: jax.Array, implementation: Literal["xla", "cudnn"]) -> jax.Array:
    """Attention of an odd number n of tokens as that of n + 1, the last of which is masked.

    cuDNN's backward pass takes even numbers, and a class token makes them odd.
    """
    b, tokens = q.shape[:2]
    lengths = jnp.full(b, tokens, jnp.int32)
    q, k, v = (jnp.pad(x, ((0, 0), (0, tokens % 2), (0, 0), (0, 0))) for x in (q, k, v))
    mixed = jax.nn.dot_product_attention(
        q, k, v, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation=implementation
    )
    return mixed[:, :tokens]
