"""Objectives of pre-training: identity-guided self-distillation (Sec. 3.3), and MoCo v2, a baseline of Table 4.

An objective owns everything that depends on the loss: network, state, optimizer, step and the signs of failure. The run
around it, from batches to checkpoints, is `train`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from cion_jax.distillation.augmentation import Augmentation, make_views, sample_keys
from cion_jax.distillation.erasing import Erasing, erase
from cion_jax.distillation.head import Head
from cion_jax.distillation.health import concerns
from cion_jax.distillation.moco import ContrastiveNetwork, create_contrastive_state, make_contrastive_step
from cion_jax.distillation.optimizer import make_optimizer
from cion_jax.distillation.schedules import Curriculum, Schedule, Stage, cosine_schedule
from cion_jax.distillation.step import LossSettings, Network, Views, create_state, make_train_step
from cion_jax.models.backbone import Backbone
from cion_jax.runtime.config import Config

LUP_BATCH = 2560  # images; LUP's learning rate belongs to this batch size


class Objective(Protocol):
    """Interface of an objective to `train`, which takes `state`, the state at step 0, away from it."""

    structure: nnx.GraphDef
    state: Any

    def step_function(self, stage: Stage, mesh: Mesh) -> Callable[..., Any]:
        """The jitted step `(state, batch) -> (state, metrics)` of a stage; batches have `images` and `sizes`."""
        ...

    def concerns(self, metrics: Mapping[str, float]) -> dict[str, str]:
        """Signs of collapse or divergence in a line of metrics, as descriptions with remedies by name."""
        ...


def create_objective(config: Config, plan: Curriculum, backbone: Backbone, rngs: nnx.Rngs) -> Objective:
    """The objective that `config.pretrain.objective` names, on a backbone with its initial weights.

    `rngs` draw the initial weights of the head.

    Raises:
        ValueError: no such objective, or settings that it cannot have.
    """
    name = config.pretrain.objective
    if name not in OBJECTIVES:
        raise ValueError(f"pretrain.objective {name!r} is unknown; choose from {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name](config, plan, backbone, rngs)


class SelfDistillation:
    """Identity-guided self-distillation: a student learns the output of its own moving average (Eq. 8-9)."""

    def __init__(self, config: Config, plan: Curriculum, backbone: Backbone, rngs: nnx.Rngs):
        s = self._settings = config.pretrain
        self._seed, self._augmentation = config.seed, Augmentation(**s.views)
        self._sizes = {"prototypes": s.head.prototypes, "embed_dim": backbone.embed_dim}
        total = plan.total_steps
        self._momentum = cosine_schedule(s.teacher.momentum, s.teacher.momentum_end, total)
        peak = s.optimizer.learning_rate * s.batch_size / 256
        warmup_steps = plan.first_step(s.optimizer.warmup_epochs)
        self._optimizer = make_optimizer(
            cosine_schedule(peak, s.optimizer.min_learning_rate, total, warmup_steps),
            cosine_schedule(s.optimizer.weight_decay, s.optimizer.weight_decay_end, total),
            clip_norm=s.optimizer.clip_norm,
            freeze_last_layer_steps=plan.first_step(s.optimizer.freeze_last_layer_epochs),
        )
        network = Network(backbone, Head(backbone.embed_dim, rngs=rngs, **s.head))
        self.structure, self.state = create_state(network, self._optimizer)

    def step_function(self, stage: Stage, mesh: Mesh) -> Callable[..., Any]:
        def views(batch: dict[str, jax.Array], step: jax.Array, positions: jax.Array) -> Views:
            keys = sample_keys(self._seed, step, positions)
            return make_views(batch["images"], batch["sizes"], keys, self._augmentation)

        return make_train_step(
            self.structure,
            self._optimizer,
            mesh=mesh,
            make_views=views,
            momentum=self._teacher_momentum(stage),
            images_per_identity=stage.images_per_identity,
            loss=LossSettings(**self._settings.loss),
            seed=self._seed,
            remat=self._settings.remat,
            accumulate=self._settings.accumulate,
        )

    def _teacher_momentum(self, stage: Stage) -> Schedule:
        """Momentum of every step, or of the last step of each epoch, and 1 (no update) in between."""
        if self._settings.teacher.update_every == "step":
            return self._momentum

        def once_an_epoch(step: jax.typing.ArrayLike) -> jax.Array:
            last = (jnp.asarray(step) + 1 - stage.first_step) % stage.steps_per_epoch == 0
            return jnp.where(last, self._momentum(step), 1.0)

        return once_an_epoch

    def concerns(self, metrics: Mapping[str, float]) -> dict[str, str]:
        return concerns(metrics, **self._sizes)


class MomentumContrast:
    """MoCo v2 with LUP's augmentation and optimizer: every image is an identity of its own (Table 4)."""

    def __init__(self, config: Config, plan: Curriculum, backbone: Backbone, rngs: nnx.Rngs):
        self._settings, self._seed = config.pretrain, config.seed
        s = self._moco = config.pretrain.moco
        self._check(plan)
        self._augmentation = Augmentation(**config.pretrain.views)
        self._erasing = Erasing(area=tuple(s.erased_area), log_aspect=False, attempts=100, fill=(0.0, 0.0, 0.0))
        self._optimizer = optax.chain(
            optax.add_decayed_weights(s.weight_decay),
            optax.sgd(
                cosine_schedule(s.learning_rate * config.pretrain.batch_size / LUP_BATCH, 0.0, plan.total_steps),
                momentum=0.9,
            ),
        )
        network = ContrastiveNetwork(backbone, backbone.embed_dim, s.dim, rngs=rngs)
        self.structure, self.state = create_contrastive_state(
            network, self._optimizer, queue_size=s.queue, dim=s.dim, seed=config.seed
        )

    def _check(self, plan: Curriculum) -> None:
        batch, accumulate = self._settings.batch_size, self._settings.accumulate
        if self._moco.queue % batch:
            raise ValueError(f"pretrain.moco.queue {self._moco.queue} is no multiple of the batch size {batch}")
        if accumulate != 1:
            raise ValueError(f"pretrain.objective=moco takes whole batches, got accumulate={accumulate}; set it to 1")
        if any(stage.images_per_identity != 1 for stage in plan.stages):
            raise ValueError(
                "pretrain.objective=moco takes every image for an identity of its own; set group_by=('image',), "
                "curriculum.stage_epochs=(0,) and curriculum.images_per_identity=(1,)"
            )

    def step_function(self, stage: Stage, mesh: Mesh) -> Callable[..., Any]:
        del stage  # all steps are alike
        return make_contrastive_step(
            self.structure,
            self._optimizer,
            mesh=mesh,
            make_views=self._views,
            momentum=lambda step: jnp.asarray(self._moco.momentum),
            temperature=self._moco.temperature,
            seed=self._seed,
            remat=self._settings.remat,
        )

    def _views(self, batch: dict[str, jax.Array], step: jax.Array, positions: jax.Array) -> Views:
        keys = sample_keys(self._seed, step, positions)
        views, _ = make_views(batch["images"], batch["sizes"], keys, self._augmentation)
        # Keys 1 and 2 of an image; its views are drawn from the key itself.
        erased = [jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number) for number in (1, 2)]
        one = jax.vmap(lambda x, key: erase(x, key, self._erasing))
        return jnp.stack([one(view, key) for view, key in zip(views, erased)]), None

    def concerns(self, metrics: Mapping[str, float]) -> dict[str, str]:
        chance = math.log(self._moco.queue + 1)
        if metrics["loss"] < 1.1 * chance:
            return {}
        return {
            "divergence": f"the loss {metrics['loss']:.3f} is above ln({self._moco.queue + 1:,}) = {chance:.2f}, worse "
            f"than a network that knows nothing. Lower moco.learning_rate"
        }


OBJECTIVES: Mapping[str, Callable[[Config, Curriculum, Backbone, nnx.Rngs], Objective]] = {
    "distillation": SelfDistillation,
    "moco": MomentumContrast,
}
