"""Losses that train the feature extractor on labelled identities."""

import jax
import jax.numpy as jnp
import optax

from cion_jax.models.normalization import l2_normalize


def supervised_contrastive_loss(embeddings: jax.Array, labels: jax.Array, temperature: float = 0.1) -> jax.Array:
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020, L_out).

        mean_i  -1/|P(i)| sum_{p in P(i)} log softmax_{a != i}(z_i . z_a / temperature)_p

    Args:
        embeddings: `[n, dim]`, L2-normalised here to z.
        labels: `[n]` identities; P(i) are the other images with the label of i, at least one.
        temperature: scale of the cosine similarities.

    Returns:
        The scalar loss, float32.
    """
    unit = l2_normalize(embeddings)
    similarity = unit @ unit.T / temperature
    itself = jnp.eye(len(labels), dtype=bool)
    positive = (labels[:, None] == labels) & ~itself
    lse = jax.nn.logsumexp(jnp.where(itself, -jnp.inf, similarity), axis=-1)
    return (lse - (similarity * positive).sum(-1) / positive.sum(-1)).mean()


def cosine_cross_entropy(
    embeddings: jax.Array, proxies: jax.Array, labels: jax.Array, scale: float = 16.0
) -> jax.Array:
    """Mean cross-entropy with logits scale * cos(embedding, proxy).

    Args:
        embeddings: `[n, dim]`.
        proxies: `[classes, dim]`, one learned vector per identity.
        labels: `[n]` integers in [0, classes).
        scale: inverse temperature.
    """
    logits = scale * l2_normalize(embeddings) @ l2_normalize(proxies).T
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
