"""MoCo v2 with LUP's settings: the baseline of Table 4 that takes every image for an identity of its own.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020, with the two-layer head of
Chen et al., 2020, and the temperature, augmentation and optimizer of Fu et al. (LUP), "Unsupervised Pre-training for
Person Re-identification", CVPR 2021. Student and teacher are MoCo's query and key encoder; the queue holds the keys of
the last steps.

One difference: batches are not shuffled over devices, because batch statistics here are those of the global batch,
which shuffling would leave as they are.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from cion_jax.distillation.schedules import Schedule
from cion_jax.distillation.step import Tree, Views, apply, image_keys, rematerialised
from cion_jax.models.layers import Linear
from cion_jax.models.normalization import l2_normalize
from cion_jax.runtime.mesh import DATA_AXIS

QUERY, KEY = 0, 1  # the two views of an image


class ContrastiveNetwork(nnx.Module):
    """Backbone and two-layer head; query and key encoder are two sets of parameters of one network."""

    def __init__(self, backbone: nnx.Module, in_dim: int, dim: int, *, rngs: nnx.Rngs):
        self.backbone = backbone
        self.fc = nnx.Sequential(Linear(in_dim, in_dim, rngs=rngs), nnx.relu, Linear(in_dim, dim, rngs=rngs))

    def __call__(self, images: jax.Array, *, image_keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Embeddings `[b, in_dim]` and unit vectors `[b, dim]`, float32, of `[b, h, w, 3]`.

        `image_keys` `[b]` are keys of the backbone's stochastic depth; without them nothing is dropped.
        """
        self.backbone.set_attributes(sample_keys=image_keys, raise_if_not_found=False)
        embeddings = self.backbone(images)
        return embeddings, l2_normalize(self.fc(embeddings))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ContrastiveState:
    """All state that training updates; `queue` holds the keys of the last steps, `[size, dim]`, oldest overwritten."""

    step: jax.Array
    student: Tree
    student_stats: Tree
    teacher: Tree
    teacher_stats: Tree
    optimizer: Tree
    queue: jax.Array


def create_contrastive_state(
    network: ContrastiveNetwork, optimizer: optax.GradientTransformation, *, queue_size: int, dim: int, seed: int
) -> tuple[nnx.GraphDef, ContrastiveState]:
    """The network's structure, and the state at step 0: equal encoders, and random unit vectors for keys."""
    network.train()
    network.set_attributes(axis_name=DATA_AXIS, raise_if_not_found=False)
    structure, params, stats = nnx.split(network, nnx.Param, nnx.BatchStat)
    params, stats = nnx.as_pure(params), nnx.as_pure(stats)
    copy = lambda tree: jax.tree.map(jnp.copy, tree)  # noqa: E731  (both encoders are donated, so neither may share)
    return structure, ContrastiveState(
        step=jnp.zeros([], jnp.int32),
        student=params,
        student_stats=stats,
        teacher=copy(params),
        teacher_stats=copy(stats),
        optimizer=optimizer.init(params),
        queue=l2_normalize(jax.random.normal(jax.random.key(seed), (queue_size, dim))),
    )


def contrastive_loss(
    queries: jax.Array, keys: jax.Array, queue: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """InfoNCE: the cross entropy of finding each query's own key among the queue (He et al., Eq. 1).

        L = mean_b -log( exp(q_b . k_b / tau) / (exp(q_b . k_b / tau) + sum_j exp(q_b . n_j / tau)) )

    Args:
        queries: q, unit vectors `[b, dim]`.
        keys: k, the teacher's unit vectors of other views of the same images, `[b, dim]`; no gradient flows into them.
        queue: n, keys of earlier images, `[size, dim]`.
        temperature: tau.

    Returns:
        The scalar loss in nats, and the share of queries that are nearer to their own key than to the whole queue.
    """
    keys, queue = lax.stop_gradient((keys, queue))
    exact = lax.Precision.HIGHEST
    own = (queries * keys).sum(-1, keepdims=True)
    others = jnp.einsum("bd,nd->bn", queries, queue, precision=exact)
    logits = jnp.concatenate([own, others], axis=1) / temperature
    loss = (jax.nn.logsumexp(logits, axis=1) - logits[:, 0]).mean()
    return loss, (own[:, 0] > others.max(axis=1)).mean()


def enqueue(queue: jax.Array, keys: jax.Array, step: jax.Array) -> jax.Array:
    """The queue with the keys of a global batch in place of the oldest ones; the batch must divide the queue."""
    return lax.dynamic_update_slice(queue, keys, (step * len(keys) % len(queue), 0))


def make_contrastive_step(
    structure: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh,
    make_views: Callable[[Tree, jax.Array, jax.Array], Views],
    momentum: Schedule,
    temperature: float,
    seed: int = 0,
    remat: bool = False,
) -> Callable[[ContrastiveState, Tree], tuple[ContrastiveState, dict[str, jax.Array]]]:
    """Makes the jitted training step `(state, batch) -> (state, metrics)`; the state is donated.

    The arguments are those of `distillation.step.make_train_step`. The teacher is updated after the student instead of
    before the next step's keys are computed, which makes the same sequence of teachers.
    """
    forward = functools.partial(apply, structure)
    student_forward = rematerialised(forward) if remat else forward

    def contrast(state: ContrastiveState, batch: Tree) -> tuple[ContrastiveState, dict[str, jax.Array]]:
        count = len(jax.tree.leaves(batch)[0])
        positions = lax.axis_index(DATA_AXIS) * count + jnp.arange(count)
        views, _ = make_views(batch, state.step, positions)
        depth_keys = image_keys(seed, state.step, positions)
        (_, keys), teacher_stats = forward(state.teacher, state.teacher_stats, views[KEY])

        def loss_of(params: Tree) -> tuple[jax.Array, Any]:
            (embeddings, queries), stats = student_forward(
                params, state.student_stats, views[QUERY], image_keys=depth_keys
            )
            loss, accuracy = contrastive_loss(queries, keys, state.queue, temperature)
            return loss, (stats, accuracy, l2_normalize(embeddings))

        (loss, (student_stats, accuracy, features)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            state.student
        )
        moments = features.mean(0), jnp.square(features).mean(0)
        loss, accuracy, gradients, moments = lax.pmean((loss, accuracy, gradients, moments), DATA_AXIS)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.student)
        student = optax.apply_updates(state.student, updates)
        m = momentum(state.step)
        metrics = {
            "loss": loss,
            "accuracy": accuracy,
            "gradient_norm": optax.tree.norm(gradients),
            "feature_std": jnp.sqrt(jnp.maximum(moments[1] - jnp.square(moments[0]), 0)).mean(),
        }
        return ContrastiveState(
            step=state.step + 1,
            student=student,
            student_stats=student_stats,
            teacher=jax.tree.map(lambda t, s: m * t + (1 - m) * s, state.teacher, student),
            teacher_stats=teacher_stats,
            optimizer=optimizer_state,
            queue=enqueue(state.queue, lax.all_gather(keys, DATA_AXIS, tiled=True), state.step),
        ), metrics

    whole, split = PartitionSpec(), PartitionSpec(DATA_AXIS)
    sharded = jax.shard_map(contrast, mesh=mesh, in_specs=(whole, split), out_specs=whole, check_vma=False)
    return jax.jit(sharded, donate_argnums=0)
