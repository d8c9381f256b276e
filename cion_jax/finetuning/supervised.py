"""Supervised fine-tuning with the released TransReID recipe (Sec. 4.1, Tables 1 and 3).

The released fine-tuning uses neither side information (SIE) nor the jigsaw module (JPM) of "TransReID:
Transformer-based Object Re-Identification" (ICCV 2021), so they are not here.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from cion_jax.distillation.schedules import Curriculum
from cion_jax.finetuning.labelled import LabelledMethod
from cion_jax.finetuning.losses import center_loss, identity_loss, triplet_loss
from cion_jax.finetuning.network import NeckClassifier, Outputs
from cion_jax.finetuning.optimizer import make_optimizer
from cion_jax.models.backbone import Backbone
from cion_jax.runtime.config import Config

Tree = Any
_COLLAPSED = 1e-3  # distance of the triplet loss from that of equal features


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Weights of the losses, label smoothing, and the triplet loss's margin (None: soft) and normalisation."""

    identity: float = 1.0
    triplet: float = 1.0
    center: float = 0.0
    smoothing: float = 0.0
    margin: float | None = None
    normalise: bool = False


class Supervised(LabelledMethod):
    """Identity loss on the BNNeck and batch-hard triplet loss on the feature before it."""

    def __init__(self, settings: Config):
        super().__init__(settings)
        self._loss = LossSettings(**settings.loss)

    def create_network(self, backbone: Backbone, identities: int, rngs: nnx.Rngs) -> NeckClassifier:
        return NeckClassifier(
            backbone,
            identities,
            test_feature=self.settings.test_feature,
            with_centers=self._loss.center > 0,
            rngs=rngs,
        )

    def optimizer(self, plan: Curriculum) -> optax.GradientTransformation:
        return make_optimizer(self.settings.optimizer, plan)

    def concerns(self, metrics: Mapping[str, float]) -> dict[str, str]:
        collapsed = math.log(2) if self._loss.margin is None else self._loss.margin
        if abs(metrics["triplet_loss"] - collapsed) > _COLLAPSED:
            return {}
        return {
            "features collapsed": (
                f"the triplet loss is {collapsed:.3f}, that of features which are all the same. Lower "
                f"optimizer.learning_rate or lengthen optimizer.warmup_epochs"
            )
        }

    def loss(
        self, outputs: Outputs, labels: jax.Array, memory: Tree, *, axis_name: str | None
    ) -> tuple[jax.Array, dict[str, jax.Array], Tree]:
        s = self._loss
        on_neck = identity_loss(outputs.logits, labels, s.smoothing)
        triplet = triplet_loss(outputs.features, labels, s.margin, normalise=s.normalise, axis_name=axis_name)
        total = s.identity * on_neck + s.triplet * triplet
        accuracy = (outputs.logits.argmax(-1) == labels).mean(dtype=jnp.float32)
        metrics = {"identity_loss": on_neck, "triplet_loss": triplet, "accuracy": accuracy}
        if outputs.centers is not None:
            metrics["center_loss"] = center_loss(outputs.features, labels, outputs.centers)
            total += s.center * metrics["center_loss"]
        return total, metrics, memory
