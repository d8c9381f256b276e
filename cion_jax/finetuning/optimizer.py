"""Optimizers of fine-tuning, with the parameter groups and the schedule of the released TransReID."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cion_jax.distillation.schedules import Curriculum
from cion_jax.runtime.config import Config

# Start and end of the schedule, as fractions of the base rate.
_START, _END = 0.01, 0.002
OPTIMIZERS = ("sgd", "adamw")


def epoch_rates(group_rate: float, base_rate: float, *, epochs: int, warmup_epochs: int) -> np.ndarray:
    """The learning rate of every epoch t = 0, 1, ... of one parameter group, and that after the last, `[epochs + 1]`.

        t < W:  0.01 base + (group - 0.01 base) t / W
        else:   low + (group - low) (1 + cos(pi t / E)) / 2,     low = 0.002 base

    As in the released code the cosine counts from the start of training, not from the end of the warm-up, so the rate
    drops a little at its end; all groups start from the same rate.

    Args:
        group_rate: rate of the group, without schedule.
        base_rate: that of the weights.
        epochs: E.
        warmup_epochs: W.
    """
    if not 0 <= warmup_epochs <= epochs:
        raise ValueError(f"warm-up of {warmup_epochs} epochs must lie within the {epochs} epochs of training")
    t = np.arange(epochs + 1)
    low = _END * base_rate
    cosine = low + (group_rate - low) * (1 + np.cos(np.pi * t / epochs)) / 2
    start = _START * base_rate
    return np.where(t < warmup_epochs, start + (group_rate - start) * t / max(warmup_epochs, 1), cosine)


def parameter_groups(params: Any, *, large_classifier_rate: bool = False) -> Any:
    """Labels every parameter, as the released code does by its key: "fixed", "classifier", "bias" or "weight".

    - "fixed": the bias of the neck, which stays zero.
    - "classifier", only with `large_classifier_rate`: keys with "classifier".
    - "bias": keys with "bias", which are also the bias tables of Swin's relative positions.
    """

    def label(path: tuple[Any, ...], value: jax.Array) -> str:
        del value
        key = ".".join(str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path)
        if key == "bottleneck.bias":
            return "fixed"
        if large_classifier_rate and "classifier" in key:
            return "classifier"
        return "bias" if "bias" in key else "weight"

    return jax.tree.map_with_path(label, params)


def make_optimizer(settings: Config, plan: Curriculum) -> optax.GradientTransformation:
    """The optimizer of a network with a BNNeck.

    SGD is PyTorch's: v <- momentum v + g + decay p;  p <- p - rate v. The groups of `parameter_groups` differ by factor
    of the rate and by decay: weights 1 and `weight_decay`; biases `bias_factor` and `weight_decay_bias`; the classifier
    2 and `weight_decay`. Rates change from epoch to epoch only (`epoch_rates`).

    Args:
        settings: `config.supervised.optimizer`.
        plan: epochs and their steps.
    """
    if settings.name not in OPTIMIZERS:
        raise ValueError(f"optimizer.name {settings.name!r} is unknown; choose from {', '.join(OPTIMIZERS)}")
    (stage,), base = plan.stages, settings.learning_rate

    def group(factor: float, decay: float) -> optax.GradientTransformation:
        rates = epoch_rates(factor * base, base, epochs=stage.epochs, warmup_epochs=settings.warmup_epochs)
        scaled = optax.scale_by_learning_rate(
            lambda step: jnp.asarray(rates)[jnp.asarray(step) // stage.steps_per_epoch]
        )
        if settings.name == "sgd":
            return optax.chain(optax.add_decayed_weights(decay), optax.trace(settings.momentum), scaled)
        return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(decay), scaled)

    groups: dict[Any, optax.GradientTransformation] = {
        "weight": group(1, settings.weight_decay),
        "bias": group(settings.bias_factor, settings.weight_decay_bias),
        "classifier": group(2, settings.weight_decay),
        "fixed": optax.set_to_zero(),
    }
    large = settings.large_classifier_rate
    return optax.partition(groups, lambda params: parameter_groups(params, large_classifier_rate=large))
