"""Losses on labelled identities: cross-entropy with label smoothing, batch-hard triplet, center and contrastive loss.

Rows are images. Where a loss compares images of the batch, `gathered` first collects those of all devices.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from cion_jax.models.normalization import l2_normalize

# Squared distances are kept above this value, below which the square root has no usable gradient.
_SMALLEST_SQUARE = 1e-12


def gathered(x: jax.Array, axis_name: str | None) -> jax.Array:
    """Rows of all devices in order, `[rows, ...] -> [devices * rows, ...]`; `x` itself without an axis."""
    return x if axis_name is None else lax.all_gather(x, axis_name, tiled=True)


def identity_loss(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Mean cross-entropy over C identities with smoothed targets (Szegedy et al., CVPR 2016).

        -mean_i sum_c q_ic log softmax(logits_i)_c,        q_ic = (1 - smoothing) [c = y_i] + smoothing / C

    Args:
        logits: `[n, C]`.
        labels: `[n]` integers in [0, C).
        smoothing: share of the target that is spread over all identities.
    """
    log_p = jax.nn.log_softmax(_float(logits))
    hit = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    return -((1 - smoothing) * hit + smoothing * log_p.mean(-1)).mean()


def triplet_loss(
    features: jax.Array,
    labels: jax.Array,
    margin: float | None = None,
    *,
    normalise: bool = False,
    axis_name: str | None = None,
) -> jax.Array:
    """Batch-hard triplet loss (Hermans et al., 2017), with every image of this device as anchor.

        d_ij = sqrt(max(|x_i|^2 + |x_j|^2 - 2 x_i . x_j, 1e-12))
        d_ap = max over images of the anchor's identity, itself included;  d_an = min over all others
        soft margin: mean log(1 + exp(d_ap - d_an));   else: mean max(0, d_ap - d_an + margin)

    Positives and negatives are taken from the global batch. Of several equally far ones the first counts, and at the
    smallest distance, 1e-6, there is no gradient.

    Args:
        features: `[n, dim]`.
        labels: `[n]` integers; the global batch must hold two identities or more.
        margin: in units of the distance; None is the soft margin.
        normalise: divide each feature by its norm + 1e-12 first.
        axis_name: mesh axis over which the batch is split.
    """
    anchors = _float(features)
    if normalise:
        anchors = anchors / (jnp.sqrt((anchors * anchors).sum(-1, keepdims=True)) + 1e-12)
    distance = euclidean_distances(anchors, gathered(anchors, axis_name))
    same = labels[:, None] == gathered(labels, axis_name)
    farthest = jnp.argmax(jnp.where(same, distance, -jnp.inf), axis=1)
    nearest = jnp.argmin(jnp.where(same, jnp.inf, distance), axis=1)
    positive, negative = (jnp.take_along_axis(distance, i[:, None], axis=1)[:, 0] for i in (farthest, nearest))
    if margin is None:
        return jax.nn.softplus(positive - negative).mean()
    return jnp.maximum(positive - negative + margin, 0).mean()


def euclidean_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Distances `[n, m]` between the rows of `[n, dim]` and `[m, dim]`, at least 1e-6, where their gradient is zero."""
    inner = jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST)
    square = (x * x).sum(-1)[:, None] + (y * y).sum(-1) - 2 * inner
    return jnp.sqrt(jnp.where(square > _SMALLEST_SQUARE, square, _SMALLEST_SQUARE))


def over_heads(loss: Any, heads: Sequence[jax.Array], *arguments: Any, **options: Any) -> jax.Array:
    """A loss of several heads, of which the first, global one counts as much as all others together.

    loss(head_0) / 2 + mean_h loss(head_h) / 2, h >= 1;         loss(head_0) for a single head.
    """
    first, *others = [loss(head, *arguments, **options) for head in heads]
    return 0.5 * first + 0.5 * sum(others) / len(others) if others else first


def center_loss(features: jax.Array, labels: jax.Array, centers: jax.Array) -> jax.Array:
    """Mean squared distance to the center of the identity (Wen et al., ECCV 2016), each within [1e-12, 1e12].

    Args:
        features: `[n, dim]`.
        labels: `[n]` integers in [0, C).
        centers: `[C, dim]`, learned.
    """
    square = jnp.square(_float(features) - centers[labels]).sum(-1)
    return jnp.clip(square, _SMALLEST_SQUARE, 1 / _SMALLEST_SQUARE).mean()


def supervised_contrastive_loss(
    embeddings: jax.Array, labels: jax.Array, temperature: float = 0.1, *, axis_name: str | None = None
) -> jax.Array:
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020, L_out), with every image of this device as anchor i.

        mean_i  -1/|P(i)| sum_{p in P(i)} log softmax_{a != i}(z_i . z_a / temperature)_p

    Args:
        embeddings: `[n, dim]`, L2-normalised here to z.
        labels: `[n]` identities; P(i) are the other images of the global batch with the label of i, at least one.
        temperature: scale of the cosine similarities.
        axis_name: mesh axis over which the batch is split.
    """
    unit = l2_normalize(embeddings)
    similarity = unit @ gathered(unit, axis_name).T / temperature
    first = 0 if axis_name is None else lax.axis_index(axis_name) * len(labels)
    itself = first + jnp.arange(len(labels))[:, None] == jnp.arange(similarity.shape[1])
    positive = (labels[:, None] == gathered(labels, axis_name)) & ~itself
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


def _float(x: jax.Array) -> jax.Array:
    """`x` in float32 at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
