"""Supervised fine-tuning of ResNets with MGN, as the released FastReID has it (Sec. 4.1, Tables 1 and 4)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from cion_jax.distillation.schedules import Curriculum
from cion_jax.finetuning.circle import circle_logits, smoothed_cross_entropy
from cion_jax.finetuning.labelled import LabelledMethod
from cion_jax.finetuning.losses import triplet_loss
from cion_jax.finetuning.method import Phase
from cion_jax.finetuning.mgn_network import BRANCHES, MGNNetwork, Outputs
from cion_jax.models.backbone import Backbone

Tree = Any

FROZEN_AT_FIRST = ("backbone", *BRANCHES)
# name of a triplet term -> the heads whose embeddings are concatenated for it
TRIPLETS = {name: (name,) for name in BRANCHES} | {stripes[-1]: stripes for stripes in BRANCHES.values() if stripes}


class MGN(LabelledMethod):
    """Circle softmax on eight heads, and soft-margin triplet loss on the whole maps and on the joined stripes."""

    def create_network(self, backbone: Backbone, identities: int, rngs: nnx.Rngs) -> MGNNetwork:
        return MGNNetwork(backbone, identities, rngs=rngs)

    def phases(self, plan: Curriculum) -> Sequence[Phase]:
        steps = self._frozen_steps(plan)
        return (Phase(0, FROZEN_AT_FIRST), Phase(steps)) if steps else (Phase(0),)

    def _frozen_steps(self, plan: Curriculum) -> int:
        s = self.settings.optimizer
        return min(plan.first_step(s.frozen_epochs) + s.extra_frozen_steps, plan.total_steps)

    def optimizer(self, plan: Curriculum) -> optax.GradientTransformation:
        s = self.settings.optimizer
        rates = step_rates(
            s.learning_rate,
            steps=plan.total_steps,
            warmup_steps=plan.first_step(s.warmup_epochs),
            constant_until=plan.first_step(s.constant_until_epoch),
        )
        return make_adam(rates, s.weight_decay, frozen_steps=self._frozen_steps(plan))

    def loss(
        self, outputs: Outputs, labels: jax.Array, memory: Tree, *, axis_name: str | None
    ) -> tuple[jax.Array, dict[str, jax.Array], Tree]:
        identity, triplet = loss_terms(outputs, labels, self.settings.smoothing, axis_name=axis_name)
        terms = {"identity_loss": identity, "triplet_loss": triplet}
        metrics = {name: jnp.stack(list(parts.values())).sum() for name, parts in terms.items()}
        return metrics["identity_loss"] + metrics["triplet_loss"], metrics, memory


def loss_terms(
    outputs: Outputs, labels: jax.Array, smoothing: float, *, axis_name: str | None
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The weighted terms of the loss: 1/8 of each head's circle softmax, 1/5 of each triplet loss.

    Args:
        outputs: of the network.
        labels: int `[b]`.
        smoothing: of the labels, see `smoothed_cross_entropy`.
        axis_name: mesh axis over which the batch is split; triplets are taken from all of it.
    """
    e = outputs.embeddings
    identity = {
        name: smoothed_cross_entropy(circle_logits(e[name], weights, labels), labels, smoothing) / len(e)
        for name, weights in outputs.classifiers.items()
    }
    joined = {name: jnp.concatenate([e[part] for part in parts], axis=1) for name, parts in TRIPLETS.items()}
    triplet = {name: triplet_loss(x, labels, axis_name=axis_name) / len(joined) for name, x in joined.items()}
    return identity, triplet


def step_rates(
    rate: float, *, steps: int, warmup_steps: int, constant_until: int, start: float = 0.01, end: float = 7.7e-7
) -> np.ndarray:
    """The learning rate of every step, `[steps]`.

        n < warmup_steps:     rate (start + (1 - start) n / warmup_steps)
        n < constant_until:   rate
        else:                 end + (rate - end) (1 + cos(pi (n - c) / (steps - c))) / 2,     c = constant_until

    Raises:
        ValueError: warm-up and constant rate end in another order, or after training.
    """
    if not 0 <= warmup_steps <= constant_until <= steps:
        raise ValueError(
            f"warm-up to step {warmup_steps} and a constant rate to step {constant_until} must end in this order, "
            f"within {steps} steps"
        )
    n = np.arange(steps)
    linear = rate * (start + (1 - start) * n / max(warmup_steps, 1))
    cosine = end + (rate - end) * (1 + np.cos(np.pi * (n - constant_until) / max(steps - constant_until, 1))) / 2
    return np.select([n < warmup_steps, n < constant_until], [linear, rate], cosine)


def make_adam(rates: np.ndarray, weight_decay: float, *, frozen_steps: int) -> optax.GradientTransformation:
    """Adam with L2 regularisation (coupled decay) of every parameter, norms and biases included.

    Shared stages and branches are left as they are for `frozen_steps` steps; their moments and bias correction start
    afterwards. The heads' biases stay zero.

    Args:
        rates: learning rate of every step, `[steps]`.
        weight_decay: factor of a parameter that is added to its gradient.
        frozen_steps: steps without the shared stages and branches.
    """

    def adam(offset: int) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(weight_decay),
            optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
            optax.scale_by_learning_rate(lambda step: jnp.asarray(rates)[jnp.asarray(step) + offset]),
        )

    def thawed(step: jax.typing.ArrayLike, **_: Any) -> jax.Array:
        return jnp.asarray(step) >= frozen_steps

    late = optax.conditionally_mask(adam(frozen_steps), thawed)
    return optax.partition({"late": late, "heads": adam(0), "fixed": optax.set_to_zero()}, parameter_groups)


def parameter_groups(params: Any) -> Any:
    """Labels every parameter: "late" (shared stages and branches), "fixed" (biases of heads) or "heads"."""

    def label(path: tuple[Any, ...], value: jax.Array) -> str:
        del value
        first, last = (getattr(entry, "key", entry) for entry in (path[0], path[-1]))
        if first in FROZEN_AT_FIRST:
            return "late"
        return "fixed" if first.endswith("_head") and last == "bias" else "heads"

    return jax.tree.map_with_path(label, params)
