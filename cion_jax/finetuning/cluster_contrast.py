"""Unsupervised fine-tuning with Cluster-Contrast (Sec. 4.1, Tables 2 and 6).

Every epoch clusters the features of all images and learns to tell the clusters apart. Unsupervised domain adaptation
(UDA) is the same from weights that were fine-tuned on another data set; USL starts from pre-trained ones.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from cion_jax.distillation.schedules import Curriculum, Stage, whole_identities
from cion_jax.features.extraction import extract_features
from cion_jax.finetuning.camera_sampler import CameraSampler
from cion_jax.finetuning.cluster_encoder import ClusterEncoder
from cion_jax.finetuning.cluster_memory import (
    ClusterMemory,
    cluster_contrast_loss,
    empty_memory,
    start_memory,
    update_memory,
)
from cion_jax.finetuning.losses import gathered
from cion_jax.finetuning.method import FineTunedNetwork, Method, Relabelled, TrainingData
from cion_jax.finetuning.pseudo_labels import Clustering, ClusterSettings, cluster
from cion_jax.models.backbone import Backbone
from cion_jax.runtime.config import Config
from cion_jax.runtime.processes import all_gather
from cion_jax.runtime.progress import console
from cion_jax.runtime.shards import Shard
from cion_jax.samples import open_images

Tree = Any


class ClusterContrast(Method):
    """Contrast of images with the centroids of their clusters, which are found anew before every epoch."""

    relabels = True

    def __init__(self, settings: Config):
        super().__init__(settings)
        self._clustering = ClusterSettings(**settings.clustering)

    def create_network(self, backbone: Backbone, identities: int, rngs: nnx.Rngs) -> ClusterEncoder:
        del identities, rngs
        return ClusterEncoder(backbone)

    def plan(self, data: TrainingData, devices: int) -> Curriculum:
        s = self.settings
        if min(s.epochs, s.steps_per_epoch, s.images_per_cluster) < 1:
            raise ValueError(
                f"{s.epochs} epochs of {s.steps_per_epoch} steps, {s.images_per_cluster} images per cluster: give at "
                "least one of each"
            )
        if len(data.paths) < 2 * s.clustering.min_samples:
            raise ValueError(
                f"{len(data.paths)} images can't form two clusters of {s.clustering.min_samples}; give more images, or "
                "a smaller clustering.min_samples"
            )
        whole_identities(s.batch_size, [1], devices=devices)
        return Curriculum((Stage(1, 0, s.epochs, 0, s.steps_per_epoch),))

    def sampler(self, labels: np.ndarray, data: TrainingData, plan: Curriculum, seed: int) -> CameraSampler:
        s = self.settings
        cameras = np.zeros(len(labels), np.int64) if data.cameras is None else data.cameras
        return CameraSampler(
            labels, cameras, plan, batch_size=s.batch_size, images_per_cluster=s.images_per_cluster, seed=seed
        )

    def optimizer(self, plan: Curriculum) -> optax.GradientTransformation:
        s, (stage,) = self.settings.optimizer, plan.stages
        rates = s.learning_rate * s.decay_factor ** (np.arange(stage.epochs) // s.decay_every_epochs)
        return make_sgd(np.repeat(rates, stage.steps_per_epoch), momentum=s.momentum, weight_decay=s.weight_decay)

    def loss(
        self, outputs: jax.Array, labels: jax.Array, memory: ClusterMemory, *, axis_name: str | None
    ) -> tuple[jax.Array, dict[str, jax.Array], ClusterMemory]:
        s = self.settings.memory
        loss = cluster_contrast_loss(outputs, labels, memory, s.temperature)
        everyone, their_labels = gathered(jax.lax.stop_gradient(outputs), axis_name), gathered(labels, axis_name)
        updated = update_memory(memory, everyone, their_labels, momentum=s.momentum, hard=s.hard)
        return loss, {}, updated

    def initial_memory(self, network: FineTunedNetwork, data: TrainingData) -> ClusterMemory:
        return empty_memory(self._capacity(data), network.embed_dim)

    def _capacity(self, data: TrainingData) -> int:
        """Clusters that the images can form: only borders shared with other clusters make any smaller than this."""
        return len(data.paths) // self._clustering.min_samples

    def relabel(
        self, network: FineTunedNetwork, data: TrainingData, labels: np.ndarray, memory: ClusterMemory, *, epoch: int
    ) -> Relabelled:
        """Clusters of all images and their centroids.

        Images that cannot be decoded are in no cluster. If there are fewer than two clusters, this is reported and the
        previous labels stay, with centroids from the new features.

        Raises:
            ValueError: fewer than two clusters in the first epoch.
        """
        del memory
        features, rows = self._features(network, data)
        truth = data.labels[rows] if (data.labels >= 0).any() else None
        found = cluster(features, self._clustering, truth)
        metrics = _metrics(found, undecodable=len(data.paths) - len(rows))
        if found.clusters >= 2:
            labels = np.full(len(data.paths), -1)
            labels[rows] = found.labels
        else:
            _report_collapse(found, epoch, self._clustering)
        return Relabelled(labels, start_memory(features, labels[rows], self._capacity(data)), metrics)

    def _features(self, network: FineTunedNetwork, data: TrainingData) -> tuple[np.ndarray, np.ndarray]:
        """Unit features `[kept, dim]` of the images that can be decoded, and their rows `[kept]`.

        With several processes, each extracts its part.
        """
        network.set_attributes(dtype=jnp.float32, raise_if_not_found=False)  # as it is evaluated
        extraction = extract_features(
            network,
            data.paths,
            **self.preprocessing._asdict(),
            batch_size=self.settings.extract_batch_size,
            dtype="float32",
            load=open_images(data.root).load,
            shard=Shard(jax.process_index(), jax.process_count()),
        )
        return all_gather(extraction.features), all_gather(extraction.rows)


def _metrics(found: Clustering, undecodable: int) -> dict[str, float]:
    metrics: dict[str, float] = {"clusters": found.clusters, "outliers": found.outliers}
    if undecodable:
        metrics["undecodable"] = undecodable
    if found.scores is not None:
        metrics |= {"pair_precision": found.scores.precision, "pair_recall": found.scores.recall}
    return metrics


def _report_collapse(found: Clustering, epoch: int, settings: ClusterSettings) -> None:
    number = "no cluster" if found.clusters == 0 else "only one cluster"
    remedy = f"with eps {settings.eps}; {'raise' if found.clusters == 0 else 'lower'} clustering.eps"
    if epoch == 0:
        raise ValueError(f"the features of the start weights form {number} {remedy}, or give other weights")
    message = f"Epoch {epoch}: the features form {number} {remedy} if this repeats. The previous labels stay."
    console.print(message, highlight=False, soft_wrap=True)


def make_sgd(rates: np.ndarray, *, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """PyTorch's SGD on every parameter, GeM's exponent and norms included; the bias of `feat_bn` stays zero.

    v <- momentum v + g + weight_decay p;  p <- p - rate v, with the rate of every step from `rates` `[steps]`.
    """
    sgd = optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum),
        optax.scale_by_learning_rate(lambda step: jnp.asarray(rates)[jnp.asarray(step)]),
    )
    return optax.partition({"trained": sgd, "fixed": optax.set_to_zero()}, parameter_groups)


def parameter_groups(params: Any) -> Any:
    """Labels every parameter "trained", but the bias of `feat_bn` "fixed"."""
    labels = jax.tree.map(lambda _: "trained", params)
    labels["feat_bn"]["bias"] = "fixed"
    return labels
