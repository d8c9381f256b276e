"""Supervised contrastive training of a backbone with a BNNeck, for the feature extractor of identity correlation."""

import functools
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from cion_jax.distillation.augmentation import Augmentation, make_views
from cion_jax.distillation.sampler import IdentitySampler, identity_sizes
from cion_jax.distillation.schedules import Curriculum, Stage, make_curriculum
from cion_jax.finetuning.losses import cosine_cross_entropy, supervised_contrastive_loss
from cion_jax.finetuning.method import FineTunedNetwork, Method, Preprocessing, TrainingData
from cion_jax.finetuning.weights import PRETRAINED
from cion_jax.models.backbone import Backbone
from cion_jax.models.neck import BNNeck

Tree = Any


class ContrastiveNetwork(FineTunedNetwork):
    """A backbone with a BNNeck, and one learned vector per identity, its proxy, for the cosine classifier."""

    def __init__(self, backbone: Backbone, identities: int, *, key: jax.Array):
        self.model = BNNeck(backbone)
        self.embed_dim = self.model.embed_dim
        self.proxies = nnx.Param(0.05 * jax.random.normal(key, (identities, self.embed_dim)))

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.model(images)

    def training_outputs(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Embeddings `[b, dim]` and proxies `[identities, dim]`."""
        return self.model(images), self.proxies[...]


class Contrastive(Method):
    """Supervised contrastive loss between two views of every image, and cross-entropy of a cosine classifier.

    Batches are those of pre-training's `IdentitySampler`. All steps form one epoch, over which the rate of AdamW warms
    up for a tenth of the steps and then falls to 0 along a cosine.
    """

    @property
    def preprocessing(self) -> Preprocessing:
        return PRETRAINED._replace(size=tuple(self.settings.size))

    @property
    def positions_size(self) -> tuple[int, int]:
        """That of every newly made model, whatever the size of images: the model is read back without the config."""
        return PRETRAINED.size

    @functools.cached_property
    def _views(self) -> Augmentation:
        return Augmentation(**self.settings.views, global_size=self.preprocessing.size, local_views=0, solarize=0.0)

    def create_network(self, backbone: Backbone, identities: int, rngs: nnx.Rngs) -> ContrastiveNetwork:
        return ContrastiveNetwork(backbone, identities, key=rngs.params.key[...])  # of the stream, as layers draw none

    def plan(self, data: TrainingData, devices: int) -> Curriculum:
        s = self.settings
        if s.steps < 1 or data.identities < 2:
            raise ValueError(
                f"{s.steps} steps on {data.identities} identities: give at least one step, and two identities to tell "
                "apart"
            )
        self._curriculum(data.labels, epochs=1, devices=devices)
        return Curriculum((Stage(s.images_per_identity, 0, 1, 0, s.steps),))

    def sampler(self, labels: np.ndarray, data: TrainingData, plan: Curriculum, seed: int) -> IdentitySampler:
        del data
        epochs = -(-plan.total_steps // self._curriculum(labels, epochs=1).total_steps)
        passes = self._curriculum(labels, epochs=epochs)
        return IdentitySampler(labels, passes, batch_size=self.settings.batch_size, seed=seed)

    def _curriculum(self, labels: np.ndarray, *, epochs: int, devices: int = 1) -> Curriculum:
        """So many passes over the data."""
        s = self.settings
        return make_curriculum(
            identity_sizes(labels),
            batch_size=s.batch_size,
            devices=devices,
            epochs=epochs,
            stage_epochs=(0,),
            images_per_identity=(s.images_per_identity,),
        )

    def optimizer(self, plan: Curriculum) -> optax.GradientTransformation:
        s, steps = self.settings, plan.total_steps
        rate = optax.warmup_cosine_decay_schedule(0, s.learning_rate, steps // 10, steps)
        return optax.adamw(rate, weight_decay=s.weight_decay)

    def augment(self, images: jax.Array, sizes: jax.Array, keys: jax.Array) -> jax.Array:
        views, _ = make_views(images, sizes, keys, self._views)
        return views.reshape(-1, *views.shape[2:])

    def loss(
        self, outputs: tuple[jax.Array, jax.Array], labels: jax.Array, memory: Tree, *, axis_name: str | None
    ) -> tuple[jax.Array, dict[str, jax.Array], Tree]:
        embeddings, proxies = outputs
        contrastive = supervised_contrastive_loss(embeddings, labels, self.settings.temperature, axis_name=axis_name)
        identity = cosine_cross_entropy(embeddings, proxies, labels)
        metrics = {"contrastive_loss": contrastive, "identity_loss": identity}
        return contrastive + identity, metrics, memory
