"""The memory of cluster centroids that Cluster-Contrast learns against.

"Cluster Contrast for Unsupervised Person Re-Identification" (ACCV 2022), Eq. 1 and 5; memory and embeddings have unit
length, with x an embedding before its normalisation:

    u = x / |x|        loss = mean_i -log softmax(M u_i / temperature)_{y_i}
    plain:  for each i in the order of the batch   M[y_i] <- l2_normalize(momentum M[y_i] + (1 - momentum) u_i)
    hard:   once for each cluster in the batch, with its u_i of the lowest similarity to M[y_i]

The gradient of a step uses the memory as it was before the update.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cion_jax.models.normalization import l2_normalize


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClusterMemory:
    """Centroids of unit length `[capacity, dim]`, of which the first `clusters` (int32 scalar) are used.

    The number of clusters changes with every epoch, the capacity stays, so that a step is compiled once.
    """

    centroids: jax.Array
    clusters: jax.Array


def empty_memory(capacity: int, dim: int) -> ClusterMemory:
    return ClusterMemory(jnp.zeros((capacity, dim), jnp.float32), jnp.zeros([], jnp.int32))


def start_memory(features: np.ndarray, labels: np.ndarray, capacity: int) -> ClusterMemory:
    """The memory at the start of an epoch: the normalised mean of the unit features of each cluster.

    Args:
        features: unit features `[n, dim]`.
        labels: clusters `[n]`, numbered from 0; -1 = in none. Every number occurs.
        capacity: rows of the memory.

    Raises:
        ValueError: more clusters than rows.
    """
    clusters = int(labels.max()) + 1
    if clusters > capacity:
        raise ValueError(f"{clusters} clusters do not fit into a memory of {capacity}; raise min_samples or eps")
    kept = labels >= 0
    centroids = np.zeros((capacity, features.shape[1]), features.dtype)
    np.add.at(centroids, labels[kept], features[kept])
    return ClusterMemory(l2_normalize(jnp.asarray(centroids)), jnp.asarray(clusters, jnp.int32))


def cluster_contrast_loss(
    embeddings: jax.Array, labels: jax.Array, memory: ClusterMemory, temperature: float = 0.05
) -> jax.Array:
    """The loss of `embeddings` `[b, dim]` with clusters `labels` `[b]`: scalar, float32 at least."""
    logits = l2_normalize(embeddings) @ memory.centroids.T / temperature
    used = jnp.arange(len(memory.centroids)) < memory.clusters
    return optax.softmax_cross_entropy_with_integer_labels(jnp.where(used, logits, -jnp.inf), labels).mean()


def update_memory(
    memory: ClusterMemory, embeddings: jax.Array, labels: jax.Array, *, momentum: float, hard: bool
) -> ClusterMemory:
    """The memory after a batch.

    Args:
        memory: memory before it.
        embeddings: `[b, dim]` of the global batch, in its order.
        labels: their clusters `[b]`.
        momentum: share of the old centroid.
        hard: use only the least similar image of each cluster (the first of equals), instead of all in turn.
    """
    update = _hard_update if hard else _plain_update
    return dataclasses.replace(memory, centroids=update(memory.centroids, l2_normalize(embeddings), labels, momentum))


def _plain_update(centroids: jax.Array, x: jax.Array, labels: jax.Array, momentum: float) -> jax.Array:
    def one(centroids: jax.Array, item: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        x, label = item
        return centroids.at[label].set(l2_normalize(momentum * centroids[label] + (1 - momentum) * x)), None

    return jax.lax.scan(one, centroids, (x, labels))[0]


def _hard_update(centroids: jax.Array, x: jax.Array, labels: jax.Array, momentum: float) -> jax.Array:
    own = centroids[labels]
    similarity = (x * own).sum(-1)
    rivals = jnp.where(labels[:, None] == labels, similarity, jnp.inf)
    hardest = jnp.argmin(rivals, axis=1) == jnp.arange(len(labels))
    rows = jnp.where(hardest, labels, len(centroids))  # rows past the end are dropped
    return centroids.at[rows].set(l2_normalize(momentum * own + (1 - momentum) * x), mode="drop")
