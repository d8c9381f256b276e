"""Circle softmax, and the cross-entropy with label smoothing that MGN's recipe uses."""

import jax
import jax.numpy as jnp

from cion_jax.models.normalization import l2_normalize

ADAPTIVE = -1.0  # smoothing by the confidence in the label
_ADAPTIVE_FACTOR = 0.2


def circle_logits(
    embeddings: jax.Array, weights: jax.Array, labels: jax.Array, *, scale: float = 64.0, margin: float = 0.35
) -> jax.Array:
    """Logits of the circle loss with one proxy per class.

    With c the cosine of an embedding and a class's weight vector, and [.] constant in the gradient,

        scale [max(1 + margin - c, 0)] (c - 1 + margin)    of the label
        scale [max(c + margin, 0)] (c - margin)            of the other classes

    "Circle Loss: A Unified Perspective of Pair Similarity Optimization" (CVPR 2020), Eq. 5, 6 and 8.

    Args:
        embeddings: `[b, dim]`.
        weights: `[dim, classes]`.
        labels: `[b]` integers in [0, classes).
        scale: gamma of the paper.
        margin: m of the paper.

    Returns:
        `[b, classes]`, float32 at least.
    """
    cosine = l2_normalize(embeddings, axis=1) @ l2_normalize(weights, axis=0)
    constant = jax.lax.stop_gradient(cosine)
    positive = jnp.maximum(1 + margin - constant, 0) * (cosine - (1 - margin))
    negative = jnp.maximum(constant + margin, 0) * (cosine - margin)
    is_label = jax.nn.one_hot(labels, cosine.shape[1], dtype=bool)
    return scale * jnp.where(is_label, positive, negative)


def smoothed_cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.1) -> jax.Array:
    """Cross-entropy with targets 1 - smoothing for the label and smoothing / (classes - 1) for every other class.

    The sum over rows is divided by the number of rows whose loss is not zero, as FastReID does (it also spreads the
    smoothing over the other classes only, where `optax.smooth_labels` spreads it over all).

    Args:
        logits: `[b, classes]`.
        labels: `[b]` integers.
        smoothing: in [0, 1), or `ADAPTIVE`: 0.2 times the probability of the label, row by row, not differentiated.

    Returns:
        The scalar loss, float32 at least.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    of_label = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    others = (log_p.sum(axis=1) - of_label) / (logits.shape[1] - 1)
    share = _ADAPTIVE_FACTOR * jax.lax.stop_gradient(jnp.exp(of_label)) if smoothing == ADAPTIVE else smoothing
    loss = -((1 - share) * of_label + share * others)
    return loss.sum() / jnp.maximum(jnp.count_nonzero(loss), 1)
