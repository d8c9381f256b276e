"""One step of identity-guided self-distillation (Fig. 3, Eq. 9) on a mesh of devices."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from cion_jax.distillation.head import Head
from cion_jax.distillation.loss import Projection, TeacherStatistics, distillation_loss, move_center
from cion_jax.distillation.schedules import Schedule
from cion_jax.models.backend.compiler import row_major
from cion_jax.models.normalization import l2_normalize
from cion_jax.runtime.mesh import DATA_AXIS

Tree = Any
# Views of b images: (globals [2, b, h, w, 3], locals [v, b, h', w', 3] or None).
Views = tuple[jax.Array, jax.Array | None]


class Network(nnx.Module):
    """Backbone and head; student and teacher are two sets of parameters of one `Network`."""

    def __init__(self, backbone: nnx.Module, head: Head):
        self.backbone = backbone
        self.head = head

    def __call__(self, *resolutions: jax.Array, image_keys: jax.Array | None = None) -> tuple[jax.Array, Projection]:
        """Embeddings and projections of all views.

        The backbone runs once per resolution and the head once over all views, which sets the batches that BatchNorm
        normalises over.

        Args:
            resolutions: views of each resolution, `[views, b, h, w, 3]`.
            image_keys: keys `[b]` for the backbone's stochastic depth, if it has any; without keys nothing is dropped.

        Returns:
            Embeddings `[views, b, dim]`, and projections with vectors `[views, b, dim']`.
        """
        batch, first_view, embeddings = resolutions[0].shape[1], 0, []
        for x in resolutions:
            keys = None if image_keys is None else view_keys(image_keys, first_view, len(x))
            self.backbone.set_attributes(sample_keys=keys, raise_if_not_found=False)
            embeddings.append(self.backbone(x.reshape(-1, *x.shape[2:])))
            first_view += len(x)
        embeddings = jnp.concatenate(embeddings)
        vectors, prototypes = self.head(embeddings)
        by_view = lambda x: x.reshape(-1, batch, x.shape[-1])  # noqa: E731
        return by_view(embeddings), Projection(by_view(vectors), prototypes)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All state that training updates. `*_stats` are each network's own running statistics of BatchNorm."""

    step: jax.Array
    student: Tree
    student_stats: Tree
    teacher: Tree
    teacher_stats: Tree
    optimizer: Tree
    center: jax.Array


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Arguments of `identity_distillation_loss` that are constant over training."""

    form: str = "paper"
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    center_momentum: float = 0.9


def create_state(network: Network, optimizer: optax.GradientTransformation) -> tuple[nnx.GraphDef, TrainState]:
    """The network's structure, and the state at step 0, in which the teacher is a copy of the student."""
    network.train()
    network.set_attributes(axis_name=DATA_AXIS, raise_if_not_found=False)
    structure, params, stats = nnx.split(network, nnx.Param, nnx.BatchStat)
    params, stats = nnx.as_pure(params), nnx.as_pure(stats)
    prototypes = network.head.last_layer.weight_v.shape[0]
    copy = lambda tree: jax.tree.map(jnp.copy, tree)  # noqa: E731  (student and teacher need buffers of their own to be donated)
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


class Means(NamedTuple):
    """Means over one micro-batch; averaged over micro-batches and devices, they are those of the global batch.

    `features` and `squares` are first and second moments of the normalised student embeddings, `[dim]`.
    """

    loss: jax.Array
    gradients: Tree
    teacher: TeacherStatistics
    features: jax.Array
    squares: jax.Array


def make_train_step(
    structure: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh,
    make_views: Callable[[Tree, jax.Array, jax.Array], Views],
    momentum: Schedule,
    images_per_identity: int,
    loss: LossSettings,
    seed: int = 0,
    remat: bool = False,
    accumulate: int = 1,
) -> Callable[[TrainState, Tree], tuple[TrainState, dict[str, jax.Array]]]:
    """Makes the jitted training step `(state, batch) -> (state, metrics)`; the state is donated.

    Args:
        structure: the network's structure, from `create_state`.
        optimizer: optimizer of the student's parameters.
        mesh: devices along `DATA_AXIS`; the leading axis of every batch array is split over them. A device's part
            must hold whole identities.
        make_views: `(images, step, their positions in the global batch [b]) -> views`; `images` is the batch, or the
            part of it that a device works on.
        momentum: schedule of m in the teacher's update, teacher = m teacher + (1 - m) student, which follows the
            student's update and covers parameters only.
        images_per_identity: K of this stage.
        loss: form, temperatures and center momentum.
        seed: seed of stochastic depth, which only the student uses (the released code leaves the teacher in training
            mode, so that it drops blocks too); views have their own randomness.
        remat: keep only the results of convolutions and matrix products for the backward pass and recompute the rest
            (normalisation, activations): less memory for a little more computation.
        accumulate: number of micro-batches that a device processes in sequence, averaging their gradients; memory is
            needed for one. Each must hold whole identities. Without BatchNorm the step is unchanged; with it, batch
            statistics are over a micro-batch (on all devices), and running ones are updated once per micro-batch.
    """
    forward = functools.partial(apply, structure)
    micro_step = functools.partial(
        _micro_step,
        make_views=make_views,
        teacher_forward=forward,
        student_forward=rematerialised(forward) if remat else forward,
        images_per_identity=images_per_identity,
        loss=loss,
        seed=seed,
    )

    def distill(state: TrainState, batch: Tree) -> tuple[TrainState, dict[str, jax.Array]]:
        count = len(jax.tree.leaves(batch)[0])
        positions = lax.axis_index(DATA_AXIS) * count + jnp.arange(count)
        stats = state.student_stats, state.teacher_stats
        stats, means = _average(functools.partial(micro_step, state), stats, (batch, positions), accumulate)
        means = lax.pmean(means, DATA_AXIS)
        updates, optimizer_state = optimizer.update(means.gradients, state.optimizer, state.student)
        student = optax.apply_updates(state.student, updates)
        m = momentum(state.step)
        return TrainState(
            step=state.step + 1,
            student=student,
            student_stats=stats[0],
            teacher=jax.tree.map(lambda t, s: m * t + (1 - m) * s, state.teacher, student),
            teacher_stats=stats[1],
            optimizer=optimizer_state,
            center=move_center(state.center, means.teacher.logits, loss.center_momentum),
        ), _metrics(means)

    whole, split = PartitionSpec(), PartitionSpec(DATA_AXIS)
    sharded = jax.shard_map(distill, mesh=mesh, in_specs=(whole, split), out_specs=whole, check_vma=False)
    return jax.jit(sharded, donate_argnums=0)


def _micro_step(
    state: TrainState,
    stats: tuple[Tree, Tree],
    images: Tree,
    positions: jax.Array,
    *,
    make_views: Callable[[Tree, jax.Array, jax.Array], Views],
    teacher_forward: Callable[..., Any],
    student_forward: Callable[..., Any],
    images_per_identity: int,
    loss: LossSettings,
    seed: int,
) -> tuple[tuple[Tree, Tree], Means]:
    """New running statistics (student's, teacher's) and `Means` of one micro-batch, without updating parameters."""
    views = [x for x in make_views(images, state.step, positions) if x is not None]
    keys = image_keys(seed, state.step, positions)
    (_, teacher), teacher_stats = teacher_forward(state.teacher, stats[1], views[0])

    def loss_of(params: Tree) -> tuple[jax.Array, Tree]:
        (embeddings, student), student_stats = student_forward(params, stats[0], *views, image_keys=keys)
        value, teacher_means = distillation_loss(
            student,
            teacher,
            state.center,
            images_per_identity=images_per_identity,
            form=loss.form,
            student_temperature=loss.student_temperature,
            teacher_temperature=loss.teacher_temperature,
        )
        return value, (student_stats, teacher_means, embeddings[0].astype(jnp.float32))

    (value, aux), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.student)
    gradients = jax.tree.map(row_major, gradients)
    student_stats, teacher_means, x = aux
    x = l2_normalize(x)
    return (student_stats, teacher_stats), Means(value, gradients, teacher_means, x.mean(0), jnp.square(x).mean(0))


def _average(step: Callable, stats: Tree, images: tuple[Tree, jax.Array], parts: int) -> tuple[Tree, Means]:
    """Scans `step(stats, *images) -> (stats, means)` over equal parts of the images and averages the means."""
    if parts == 1:
        return step(stats, *images)
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), images)
    _, shapes = jax.eval_shape(step, stats, *jax.tree.map(lambda x: x[0], split))

    def add(carry: tuple[Tree, Means], part: tuple[Tree, jax.Array]) -> tuple[tuple[Tree, Means], None]:
        stats, means = step(carry[0], *part)
        return (stats, jax.tree.map(lambda total, x: total + x / parts, carry[1], means)), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return lax.scan(add, (stats, zeros), split)[0]


def rematerialised(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` that stores only the results of convolutions and matrix products for the backward pass."""

    def is_product(primitive: Any, *_: Any, **__: Any) -> bool:
        return primitive in (lax.conv_general_dilated_p, lax.dot_general_p)

    return jax.checkpoint(forward, policy=is_product)


def apply(
    structure: nnx.GraphDef, params: Tree, stats: Tree, *views: jax.Array, image_keys: jax.Array | None = None
) -> tuple[Any, Tree]:
    """Runs the network functionally; returns its output and the new running statistics."""
    network = nnx.merge(structure, params, stats, copy=True)
    output = network(*views, image_keys=image_keys)
    return output, nnx.as_pure(nnx.state(network, nnx.BatchStat))


# Makes the keys of stochastic depth independent of those of the views, which start from the same seed.
_STREAM = 0x64726F70


def image_keys(seed: int, step: jax.Array, positions: jax.Array) -> jax.Array:
    """One PRNG key per image, `[b]`, for stochastic depth, from (seed, step, position in the global batch)."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _STREAM), step)
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)


def view_keys(keys: jax.Array, first: int, views: int) -> jax.Array:
    """Keys `[views * b]`, view-major, for views `first`, `first + 1`, ... of images with keys `[b]`."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    return jax.vmap(fold, in_axes=(None, 0))(keys, jnp.arange(first, first + views)).reshape(-1)


def _metrics(means: Means) -> dict[str, jax.Array]:
    """Metrics of the global batch that distinguish learning from collapse and divergence.

    `teacher_entropy`: mean entropy of the teacher's distributions, in nats (ln(prototypes) = uniform, 0 = one
    prototype each). `mean_entropy`: entropy of their mean; near 0 means that all images share one prototype.
    `kl`: loss minus `teacher_entropy`, the least loss possible for this teacher. `feature_std`: mean over dimensions
    of the standard deviation of the normalised student embeddings. `gradient_norm`: norm before clipping.
    """
    q = means.teacher.targets
    variance = jnp.maximum(means.squares - jnp.square(means.features), 0)
    return {
        "loss": means.loss,
        "kl": means.loss - means.teacher.entropy,
        "gradient_norm": optax.tree.norm(means.gradients),
        "teacher_entropy": means.teacher.entropy,
        "mean_entropy": -(q * jnp.log(jnp.maximum(q, 1e-30))).sum(),
        "feature_std": jnp.sqrt(variance).mean(),
    }
