"""Losses that train the feature extractor on labelled identities."""

import jax
import jax.numpy as jnp
import optax


def supervised_contrastive_loss(embeddings: jax.Array, labels: jax.Array, temperature: float = 0.1) -> jax.Array:
    """Mean over images i of -1/|P(i)| sum_{p in P(i)} log softmax_{a != i}(z_i . z_a / temperature)_p.

    `embeddings` is `[n, dim]`, L2-normalised here; P(i) are the other images of the label of i, one at least.
    """
    unit = _unit(embeddings)
    similarity = unit @ unit.T / temperature
    itself = jnp.eye(len(labels), dtype=bool)
    positive = (labels[:, None] == labels) & ~itself
    lse = jax.nn.logsumexp(jnp.where(itself, -jnp.inf, similarity), axis=-1)
    return (lse - (similarity * positive).sum(-1) / positive.sum(-1)).mean()


def cosine_cross_entropy(
    embeddings: jax.Array, proxies: jax.Array, labels: jax.Array, scale: float = 16.0
) -> jax.Array:
    """Cross-entropy of `scale` times the cosine between `embeddings` `[n, dim]` and `proxies` `[classes, dim]`."""
    logits = scale * _unit(embeddings) @ _unit(proxies).T
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _unit(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
