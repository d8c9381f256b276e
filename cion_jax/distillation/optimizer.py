"""AdamW as in DINO: clipping per tensor, no decay of biases and 1-D parameters, last layer frozen at first."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from cion_jax.distillation.schedules import Schedule

Labels = Any  # tree of strings with the structure of the parameters


def make_optimizer(
    learning_rate: Schedule,
    weight_decay: Schedule,
    *,
    clip_norm: float | None = 3.0,
    freeze_last_layer_steps: int = 0,
) -> optax.GradientTransformation:
    """Optimizer of the student, whose parameters are a nested dict that contains `head/last_layer`.

    The prototypes (`last_layer`) are frozen for `freeze_last_layer_steps` steps: no update, no decay, and their
    moments and bias correction start afterwards, as for a PyTorch parameter whose `grad` is None.
    """

    def adamw(offset: int, decay: bool) -> optax.GradientTransformation:
        parts = [optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)]
        if decay:
            parts.append(optax.add_decayed_weights(lambda count: weight_decay(jnp.asarray(count) + offset)))
        parts.append(optax.scale_by_learning_rate(lambda count: learning_rate(jnp.asarray(count) + offset)))
        return optax.chain(*parts)

    def thawed(step: jax.typing.ArrayLike, **_: Any) -> jax.Array:
        return jnp.asarray(step) >= freeze_last_layer_steps

    late = optax.conditionally_mask(adamw(freeze_last_layer_steps, decay=True), thawed)
    adam = optax.partition(
        {"decayed": adamw(0, decay=True), "plain": adamw(0, decay=False), "last_layer": late}, parameter_groups
    )
    return adam if clip_norm is None else optax.chain(clip_per_tensor(clip_norm), adam)


def parameter_groups(params: Any) -> Labels:
    """Labels every parameter "last_layer", "plain" (biases and 1-D parameters: no weight decay) or "decayed"."""

    def label(path: tuple[Any, ...], value: jax.Array) -> str:
        names = [str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path]
        if "last_layer" in names:
            return "last_layer"
        return "plain" if value.ndim == 1 or names[-1] == "bias" else "decayed"

    return jax.tree.map_with_path(label, params)


def clip_per_tensor(max_norm: float) -> optax.GradientTransformation:
    """Scales each gradient tensor g by min(1, max_norm / (||g|| + 1e-6))."""

    def clip(gradients: Any, params: Any = None) -> Any:
        del params

        def one(gradient: jax.Array) -> jax.Array:
            norm = jnp.sqrt(jnp.sum(jnp.square(gradient.astype(jnp.float32))))
            return gradient * jnp.minimum(1.0, max_norm / (norm + 1e-6)).astype(gradient.dtype)

        return jax.tree.map(one, gradients)

    return optax.stateless(clip)
