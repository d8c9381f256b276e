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
from cion_jax.runtime.mesh import DATA_AXIS

Tree = Any
# (globals [2, b, h, w, 3], locals [v, b, h', w', 3] or None) from some images of the batch.
Views = tuple[jax.Array, jax.Array | None]


class Network(nnx.Module):
    """Backbone and head; the student and the teacher are two sets of parameters of one `Network`."""

    def __init__(self, backbone: nnx.Module, head: Head):
        self.backbone = backbone
        self.head = head

    def __call__(self, *resolutions: jax.Array, image_keys: jax.Array | None = None) -> tuple[jax.Array, Projection]:
        """Embeddings `[views, b, dim]` and their projections, vectors `[views, b, dim']`, of `[views, b, h, w, 3]`.

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
        vectors, prototypes = self.head(embeddings)
        by_view = lambda x: x.reshape(-1, batch, x.shape[-1])  # noqa: E731
        return by_view(embeddings), Projection(by_view(vectors), prototypes)


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
    """Arguments of the loss that stay the same over training, as `identity_distillation_loss` has them."""

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


class Means(NamedTuple):
    """Of one micro-batch; averaged over micro-batches and devices they are those of the global batch.

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
    """A jitted `(state, batch) -> (state, metrics)`; the state is donated.

    Args:
        structure: the network's structure, from `create_state`.
        optimizer: of the student's parameters.
        mesh: devices along `DATA_AXIS`; the leading axis of every batch array is split over them. A device's part
            must hold whole identities.
        make_views: `(images, step, their positions in the global batch [b]) -> views`; `images` is the batch, or the
            part of it that a device works on.
        momentum: of the teacher: teacher = m teacher + (1 - m) student, parameters only, after the student's update.
        images_per_identity: K of this stage.
        loss: form and temperatures.
        seed: of stochastic depth, which the student alone has (the released code leaves the teacher in training mode,
            so that it drops too); views have their own randomness.
        remat: keep only the results of convolutions and matrix products for the backward pass, and compute what lies
            between them (normalisation, activations) again: less memory for a few passes over it.
        accumulate: micro-batches that a device goes through one after the other, their gradients averaged: memory for
            one. Each must hold whole identities. Without BatchNorm the step is the same; BatchNorm takes its batch
            statistics over a micro-batch (on all devices), and moves its running ones once for each.
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
    """New (student's, teacher's) running statistics and the `Means` of some images."""
    views = [x for x in make_views(images, state.step, positions) if x is not None]
    keys = image_keys(seed, state.step, positions)
    (_, teacher), teacher_stats = teacher_forward(state.teacher, stats[1], views[0])

    def loss_of(params: Tree) -> tuple[jax.Array, Tree]:
        (embeddings, student), student_stats = student_forward(params, stats[0], *views, image_keys=keys)
        value, of_teacher = distillation_loss(
            student,
            teacher,
            state.center,
            images_per_identity=images_per_identity,
            form=loss.form,
            student_temperature=loss.student_temperature,
            teacher_temperature=loss.teacher_temperature,
        )
        return value, (student_stats, of_teacher, embeddings[0].astype(jnp.float32))

    (value, aux), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.student)
    student_stats, of_teacher, x = aux
    x /= jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return (student_stats, teacher_stats), Means(value, gradients, of_teacher, x.mean(0), jnp.square(x).mean(0))


def _average(step: Callable, stats: Tree, images: tuple[Tree, jax.Array], parts: int) -> tuple[Tree, Means]:
    """Takes `step(stats, *images) -> (stats, means)` through equal parts of the images; the means are averaged."""
    if parts == 1:
        return step(stats, *images)
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), images)
    _, shapes = jax.eval_shape(step, stats, *jax.tree.map(lambda x: x[0], split))

    def add(carry: tuple[Tree, Means], part: tuple[Tree, jax.Array]) -> tuple[tuple[Tree, Means], None]:
        stats, means = step(carry[0], *part)
        return (stats, jax.tree.map(lambda total, x: total + x / parts, carry[1], means)), None

    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return lax.scan(add, (stats, nothing), split)[0]


def rematerialised(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward`, of which the backward pass finds only the results of convolutions and products in memory."""

    def is_product(primitive: Any, *_: Any, **__: Any) -> bool:
        return primitive in (lax.conv_general_dilated_p, lax.dot_general_p)

    return jax.checkpoint(forward, policy=is_product)


def apply(
    structure: nnx.GraphDef, params: Tree, stats: Tree, *views: jax.Array, image_keys: jax.Array | None = None
) -> tuple[Any, Tree]:
    """Runs the network functionally: its output and the new running statistics."""
    network = nnx.merge(structure, params, stats, copy=True)
    output = network(*views, image_keys=image_keys)
    return output, nnx.as_pure(nnx.state(network, nnx.BatchStat))


# Sets stochastic depth apart from the views, whose keys start from the same seed.
_STREAM = 0x64726F70


def image_keys(seed: int, step: jax.Array, positions: jax.Array) -> jax.Array:
    """A key per image from (seed, step, position in the global batch)."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _STREAM), step)
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)


def view_keys(keys: jax.Array, first: int, views: int) -> jax.Array:
    """Keys `[views * b]`, view by view, of images with keys `[b]` and views `first`, `first + 1`, ..."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    return jax.vmap(fold, in_axes=(None, 0))(keys, jnp.arange(first, first + views)).reshape(-1)


def _metrics(means: Means) -> dict[str, jax.Array]:
    """Metrics over the global batch that distinguish learning from collapse and divergence.

    `teacher_entropy`: mean entropy of the teacher's distributions, in nats (ln(prototypes) = uniform, 0 = one
    prototype each). `mean_entropy`: entropy of their mean; near 0 means that all images share one prototype.
    `kl`: what the loss is above the least it could be for this teacher. `feature_std`: mean over dimensions of the
    standard deviation of the normalised student embeddings. `gradient_norm`: before clipping.
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
