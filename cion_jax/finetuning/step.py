"""One step of fine-tuning on a mesh of devices, for any method."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from cion_jax.distillation.augmentation import sample_keys
from cion_jax.distillation.step import image_keys
from cion_jax.finetuning.method import FineTunedNetwork, Method
from cion_jax.runtime.mesh import DATA_AXIS

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All state that training updates; equal on all devices.

    `stats` are the running statistics of BatchNorm, `memory` is the method's, and `labels` int32 `[rows]` are the
    identities that the images have in this epoch.
    """

    step: jax.Array
    params: Tree
    stats: Tree
    optimizer: Tree
    memory: Tree
    labels: jax.Array


def create_state(
    network: FineTunedNetwork, optimizer: optax.GradientTransformation, memory: Tree, labels: np.ndarray
) -> tuple[nnx.GraphDef, TrainState]:
    """The network's structure in training mode, and the state at step 0."""
    network.train()
    network.set_attributes(axis_name=DATA_AXIS, raise_if_not_found=False)
    structure, params, stats = nnx.split(network, nnx.Param, nnx.BatchStat)
    params, stats = nnx.as_pure(params), nnx.as_pure(stats)
    return structure, TrainState(
        step=jnp.zeros([], jnp.int32),
        params=params,
        stats=stats,
        optimizer=optimizer.init(params),
        memory=memory,
        labels=jnp.asarray(labels, jnp.int32),
    )


def make_train_step(
    structure: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    method: Method,
    *,
    mesh: Mesh,
    seed: int = 0,
    frozen: Sequence[str] = (),
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]:
    """Makes the jitted training step `(state, batch) -> (state, metrics)`; the state is donated.

    A batch has `images` and `sizes`, as `Method.augment` takes them, and `labels` `[b]`; their leading axis is split
    over the devices of the mesh. Metrics are the method's, with `loss` and `gradient_norm`.

    Args:
        structure: the network's structure, from `create_state`.
        optimizer: the method's.
        method: gives views and loss.
        mesh: devices along `DATA_AXIS`; a device's part of a batch must hold whole identities.
        seed: seed of augmentation and stochastic depth.
        frozen: parts of the network that stay as they are (see `Phase`).
    """

    def fine_tune(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, dict[str, jax.Array]]:
        count = len(batch["labels"])
        positions = lax.axis_index(DATA_AXIS) * count + jnp.arange(count)
        images = method.augment(batch["images"], batch["sizes"], sample_keys(seed, state.step, positions))
        views = len(images) // count
        keys = image_keys(seed, state.step, jnp.tile(positions, views))

        def loss_of(params: Tree) -> tuple[jax.Array, tuple[Tree, Tree, Tree]]:
            outputs, stats = _apply(structure, _without_gradient(params, frozen), state.stats, images, keys, frozen)
            labels = jnp.tile(batch["labels"], views)
            loss, metrics, memory = method.loss(outputs, labels, state.memory, axis_name=DATA_AXIS)
            return loss, (metrics | {"loss": loss}, memory, stats)

        gradients, (metrics, memory, stats) = jax.grad(loss_of, has_aux=True)(state.params)
        gradients, metrics = lax.pmean((gradients, metrics), DATA_AXIS)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            stats=stats,
            optimizer=optimizer_state,
            memory=memory,
        )
        return state, metrics | {"gradient_norm": optax.tree.norm(gradients)}

    whole, split = PartitionSpec(), PartitionSpec(DATA_AXIS)
    sharded = jax.shard_map(fine_tune, mesh=mesh, in_specs=(whole, split), out_specs=whole, check_vma=False)
    return jax.jit(sharded, donate_argnums=0)


def _without_gradient(params: Tree, frozen: Sequence[str]) -> Tree:
    return {name: lax.stop_gradient(part) if name in frozen else part for name, part in params.items()}


def _apply(
    structure: nnx.GraphDef, params: Tree, stats: Tree, images: jax.Array, keys: jax.Array, frozen: Sequence[str]
) -> tuple[Any, Tree]:
    """Runs the network functionally, its frozen parts in evaluation mode; its outputs and new running statistics."""
    network = nnx.merge(structure, params, stats, copy=True)
    for name in frozen:
        getattr(network, name).eval()
    network.set_attributes(sample_keys=keys, raise_if_not_found=False)
    outputs = network.training_outputs(images)
    return outputs, nnx.as_pure(nnx.state(network, nnx.BatchStat))
