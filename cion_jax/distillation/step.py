"""One step of identity-guided self-distillation (Fig. 3, Eq. 9) on a mesh of devices."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from cion_jax.distillation.head import Head
from cion_jax.distillation.loss import identity_distillation_loss
from cion_jax.distillation.schedules import Schedule
from cion_jax.runtime.mesh import DATA_AXIS

Tree = Any
# (globals [2, b, h, w, 3], locals [v, b, h', w', 3] or None) from a device's part of the batch.
Views = tuple[jax.Array, jax.Array | None]


class Network(nnx.Module):
    """Backbone and head; the student and the teacher are two sets of parameters of one `Network`."""

    def __init__(self, backbone: nnx.Module, head: Head):
        self.backbone = backbone
        self.head = head

    def __call__(self, *resolutions: jax.Array, image_keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Embeddings `[views, b, dim]` and logits `[views, b, prototypes]` of `[views, b, h, w, 3]` arrays.

        The backbone runs once per resolution, the head once over everything, as BatchNorm in either sees it.
        `image_keys` `[b]` are for stochastic depth in the backbone, where it has any; without them nothing drops.
        """
        batch, first_view, embeddings = resolutions[0].shape[1], 0, []
        for x in resolutions:
            keys = None if image_keys is None else view_keys(image_keys, first_view, len(x))
            self.backbone.set_attributes(sample_keys=keys, raise_if_not_found=False)
            embeddings.append(self.backbone(x.reshape(-1, *x.shape[2:])))
            first_view += len(x)
        embeddings = jnp.concatenate(embeddings)
        logits = self.head(embeddings)
        return embeddings.reshape(-1, batch, embeddings.shape[-1]), logits.reshape(-1, batch, logits.shape[-1])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that training changes. `*_stats` are BatchNorm's running statistics, each network its own."""

    step: jax.Array
    student: Tree
    student_stats: Tree
    teacher: Tree
    teacher_stats: Tree
    optimizer: Tree
    center: jax.Array


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Arguments of `identity_distillation_loss` that stay the same over training."""

    form: str = "paper"
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    center_momentum: float = 0.9


def create_state(network: Network, optimizer: optax.GradientTransformation) -> tuple[nnx.GraphDef, TrainState]:
    """The state at step 0: the teacher starts as a copy of the student. Returns the network's structure too."""
    network.train()
    network.set_attributes(axis_name=DATA_AXIS, raise_if_not_found=False)
    structure, params, stats = nnx.split(network, nnx.Param, nnx.BatchStat)
    params, stats = nnx.as_pure(params), nnx.as_pure(stats)
    prototypes = network.head.last_layer.weight_v.shape[0]
    copy = lambda tree: jax.tree.map(jnp.copy, tree)  # noqa: E731  (buffers of student and teacher are donated apart)
    state = TrainState(
        step=jnp.zeros([], jnp.int32),
        student=params,
        student_stats=stats,
        teacher=copy(params),
        teacher_stats=copy(stats),
        optimizer=optimizer.init(params),
        center=jnp.zeros((1, prototypes), jnp.float32),
    )
    return structure, state


def make_train_step(
    structure: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh,
    make_views: Callable[[Tree, jax.Array], Views],
    momentum: Schedule,
    images_per_identity: int,
    loss: LossSettings,
    seed: int = 0,
) -> Callable[[TrainState, Tree], tuple[TrainState, dict[str, jax.Array]]]:
    """A jitted `(state, batch) -> (state, metrics)`; the state is donated.

    Args:
      structure: the network's structure, from `create_state`.
      optimizer: of the student's parameters.
      mesh: devices along `DATA_AXIS`; the leading axis of every batch array is split over them. A device's part
        must hold whole identities.
      make_views: `(device's part of the batch, step) -> views`.
      momentum: of the teacher: teacher = m teacher + (1 - m) student, parameters only, after the student's update.
      images_per_identity: K of this stage.
      loss: form and temperatures.
      seed: of stochastic depth, which the student alone has (the released code leaves the teacher in training mode,
        so that it drops too); views have their own randomness.
    """

    def distill(state: TrainState, batch: Tree) -> tuple[TrainState, dict[str, jax.Array]]:
        views, local_views = make_views(batch, state.step)
        all_views = (views,) if local_views is None else (views, local_views)
        (_, teacher_logits), teacher_stats = apply(structure, state.teacher, state.teacher_stats, views)
        keys = image_keys(seed, state.step, views.shape[1])

        def loss_of(params: Tree) -> tuple[jax.Array, Tree]:
            (embeddings, logits), stats = apply(structure, params, state.student_stats, *all_views, image_keys=keys)
            value, center = identity_distillation_loss(
                logits,
                teacher_logits,
                state.center,
                images_per_identity=images_per_identity,
                axis_name=DATA_AXIS,
                **dataclasses.asdict(loss),
            )
            return value, (stats, center, embeddings)

        (value, (stats, center, embeddings)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.student)
        gradients = lax.pmean(gradients, DATA_AXIS)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.student)
        student = optax.apply_updates(state.student, updates)
        m = momentum(state.step)
        metrics = {
            "loss": value,
            "gradient_norm": optax.tree.norm(gradients),
            **collapse_metrics(teacher_logits, state.center, embeddings[0], loss.teacher_temperature),
        }
        return TrainState(
            step=state.step + 1,
            student=student,
            student_stats=stats,
            teacher=jax.tree.map(lambda t, s: m * t + (1 - m) * s, state.teacher, student),
            teacher_stats=teacher_stats,
            optimizer=optimizer_state,
            center=center,
        ), metrics

    whole, split = PartitionSpec(), PartitionSpec(DATA_AXIS)
    sharded = jax.shard_map(distill, mesh=mesh, in_specs=(whole, split), out_specs=whole, check_vma=False)
    return jax.jit(sharded, donate_argnums=0)


def apply(
    structure: nnx.GraphDef, params: Tree, stats: Tree, *views: jax.Array, image_keys: jax.Array | None = None
) -> tuple[Any, Tree]:
    """Runs the network functionally: its output and the new running statistics."""
    network = nnx.merge(structure, params, stats, copy=True)
    output = network(*views, image_keys=image_keys)
    return output, nnx.as_pure(nnx.state(network, nnx.BatchStat))


# Sets stochastic depth apart from the views, whose keys start from the same seed.
_STREAM = 0x64726F70


def image_keys(seed: int, step: jax.Array, count: int) -> jax.Array:
    """A key for each of a device's `count` images, from (seed, step, position in the global batch); in `shard_map`."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _STREAM), step)
    positions = lax.axis_index(DATA_AXIS) * count + jnp.arange(count)
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)


def view_keys(keys: jax.Array, first: int, views: int) -> jax.Array:
    """Keys `[views * b]`, view by view, of images with keys `[b]` and views `first`, `first + 1`, ..."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    return jax.vmap(fold, in_axes=(None, 0))(keys, jnp.arange(first, first + views)).reshape(-1)


def collapse_metrics(
    teacher_logits: jax.Array, center: jax.Array, embeddings: jax.Array, temperature: float
) -> dict[str, jax.Array]:
    """What tells collapse from learning, over the global batch.

    `teacher_entropy`: mean entropy of the teacher's distributions, in nats (ln(prototypes) = uniform, 0 = one
    prototype each). `mean_entropy`: entropy of their mean; near 0 means that all images share one prototype.
    `feature_std`: mean over dimensions of the standard deviation of the normalised student embeddings.
    """
    log_q = jax.nn.log_softmax((teacher_logits.astype(jnp.float32) - center) / temperature)
    q = jnp.exp(log_q)
    mean_q = lax.pmean(q.mean((0, 1)), DATA_AXIS)
    x = embeddings.astype(jnp.float32)
    x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    mean, square = lax.pmean((x.mean(0), jnp.square(x).mean(0)), DATA_AXIS)
    return {
        "teacher_entropy": lax.pmean(-(q * log_q).sum(-1).mean(), DATA_AXIS),
        "mean_entropy": -(mean_q * jnp.log(jnp.maximum(mean_q, 1e-30))).sum(),
        "feature_std": jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0)).mean(),
    }
