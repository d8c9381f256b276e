"""The training step: any number of devices and processes equals one; optimizer parts against hand-written NumPy.

As a program, `python -m tests.test_step FILE` runs three steps as one of several processes.
"""

import pickle
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from cion_jax.conversion import signature
from cion_jax.distillation.augmentation import sample_keys
from cion_jax.distillation.head import Head
from cion_jax.distillation.loss import distillation_loss
from cion_jax.distillation.optimizer import clip_per_tensor, make_optimizer, parameter_groups
from cion_jax.distillation.step import (
    LossSettings,
    Network,
    create_state,
    image_keys,
    make_train_step,
    view_keys,
)
from cion_jax.models import create_model, list_models
from cion_jax.runtime.mesh import DATA_AXIS, make_mesh, replicate, shard_batch
from cion_jax.runtime.processes import is_primary, start_up
from tests import processes


def network(model="resnet_ibn_test", batch_norm=True, **settings):
    rngs = nnx.Rngs(0)
    backbone = create_model(model, rngs=rngs, **settings)
    return Network(
        backbone, Head(backbone.embed_dim, 32, hidden_dim=24, bottleneck_dim=16, batch_norm=batch_norm, rngs=rngs)
    )


def views_of(batch, step, positions):
    """Two global and two local views from one array per image, `[b, 64, 32, 3]`."""
    x = batch["images"] * (1 + 0.1 * step)
    return jnp.stack([x, x[:, :, ::-1]]), jnp.stack([x[:, :32, :16], x[:, 32:, 16:]])


def images_of(step):
    return np.random.default_rng(step).normal(size=(16, 64, 32, 3)).astype(np.float32)


def global_views_of(batch, step, positions):
    return views_of(batch, step, positions)[0], None


def run(
    devices, optimizer, steps=3, k=2, model="resnet_ibn_test", seed=0, form="paper", make_views=views_of, **settings
):
    mesh = make_mesh(jax.devices()[:devices])
    structure, state = create_state(network(model, **settings), optimizer)
    state = replicate(state, mesh)
    step = make_train_step(
        structure, optimizer, mesh=mesh, make_views=make_views, momentum=lambda s: 0.9 + 0.01 * s,
        images_per_identity=k, loss=LossSettings(form=form), seed=seed,
    )  # fmt: skip
    losses = []
    for i in range(steps):
        own = np.split(images_of(i), jax.process_count())[jax.process_index()]
        state, metrics = step(state, shard_batch({"images": own}, mesh))
        losses.append(float(metrics["loss"]))
    return losses, *jax.device_get((vars(state), metrics))


def largest_difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: np.abs(np.float64(x) - np.float64(y)).max(), a, b)))


def sgd():
    """SGD, because Adam's normalisation would hide an error of scale in the gradients.

    Small steps: batch normalisation in the head makes the loss steep, and rounding must not be amplified.
    """
    return optax.chain(clip_per_tensor(3.0), optax.sgd(1e-3, momentum=0.9))


@pytest.mark.slow
def test_eight_devices_and_two_processes_of_four_equal_one(tmp_path):
    losses, state, _ = run(1, sgd())
    for sharded_losses, sharded_state, metrics in (run(8, sgd()), by_two_processes(tmp_path)):
        np.testing.assert_allclose(sharded_losses, losses, rtol=1e-5)
        for part in ("student", "teacher", "student_stats", "teacher_stats", "center"):
            assert largest_difference(sharded_state[part], state[part]) < 1e-5, part
        # The optimizer state is momentum, with the scale of the gradients: up to 3 here.
        assert largest_difference(sharded_state["optimizer"], state["optimizer"]) < 1e-4
        assert np.isfinite(jax.tree.leaves(metrics)).all()
    assert losses[0] != losses[1]


def by_two_processes(folder):
    """The results of `run` in two processes of four devices."""
    processes.run(2, folder, "-m", "tests.test_step", folder / "result.pickle", devices=4)
    return pickle.loads((folder / "result.pickle").read_bytes())


@pytest.fixture(scope="module")
def on_one_device():
    """Two steps in the released form of a model with BatchNorm, by SGD with momentum."""
    return run(1, optax.sgd(1e-3, momentum=0.9), steps=2, model="vit_test", form="released")


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_any_number_of_devices_equals_one_in_the_released_form_too(devices, on_one_device):
    losses, state, metrics = on_one_device
    options = dict(optimizer=optax.sgd(1e-3, momentum=0.9), steps=2, model="vit_test", form="released")
    sharded_losses, sharded_state, sharded_metrics = run(devices, **options)
    np.testing.assert_allclose(sharded_losses, losses, rtol=1e-5)
    assert sharded_state.keys() == state.keys()
    for part, expected in state.items():
        scale = max(np.abs(x).max() for x in jax.tree.leaves(expected)) if part == "optimizer" else 1
        assert largest_difference(sharded_state[part], expected) < (1e-4 * scale if part == "optimizer" else 1e-5), part
    for name, value in metrics.items():
        np.testing.assert_allclose(sharded_metrics[name], value, rtol=1e-3, atol=1e-6, err_msg=name)


def stochastic_depth_keys(devices, seed, step):
    """Keys of 8 images in 3 views, `[3, 8]`, as numbers."""

    def keys(positions):
        return jax.random.key_data(view_keys(image_keys(seed, step, positions), 0, 3)).reshape(3, 8 // devices, -1)

    mesh = make_mesh(jax.devices()[:devices])
    spread = PartitionSpec(None, DATA_AXIS)
    sharded = jax.shard_map(keys, mesh=mesh, in_specs=PartitionSpec(DATA_AXIS), out_specs=spread)
    return np.asarray(sharded(jnp.arange(8)))


@pytest.mark.slow
def test_stochastic_depth_has_a_key_per_image_view_step_and_seed_on_any_number_of_devices():
    kinds = [stochastic_depth_keys(1, seed, step) for seed, step in ((0, 0), (0, 1), (1, 0))]
    np.testing.assert_array_equal(stochastic_depth_keys(8, 1, 0), kinds[2])
    augmentation = np.asarray(jax.random.key_data(sample_keys(0, 0, jnp.arange(8))))
    every = np.concatenate([keys.reshape(-1, keys.shape[-1]) for keys in (*kinds, augmentation)])
    assert len(np.unique(every, axis=0)) == len(every) == 3 * 24 + 8


@pytest.mark.slow
def test_stochastic_depth_is_the_same_on_eight_devices_and_leaves_the_teacher_alone():
    options = dict(steps=1, model="swin_test", drop_rate=0.5, make_views=global_views_of)
    options |= {"optimizer": optax.sgd(1e-3, momentum=0.9)}
    losses, state, _ = run(1, **options)
    sharded_losses, sharded_state, _ = run(8, **options)
    np.testing.assert_allclose(sharded_losses, losses, rtol=1e-5)
    assert largest_difference(sharded_state["student"], state["student"]) < 1e-5
    assert largest_difference(sharded_state["optimizer"], state["optimizer"]) < 3e-5  # the gradients
    # The same with two forward passes; without keys nothing is dropped.
    views, _ = global_views_of({"images": images_of(0)}, 0, None)
    forward = nnx.jit(lambda network, *keys: network(views, image_keys=keys[0] if keys else None)[1])
    whole = forward(network("swin_test", drop_rate=0.5))
    dropped = forward(network("swin_test", drop_rate=0.5), image_keys(0, 0, jnp.arange(16)))
    center = jnp.zeros((1, 32))
    loss, plain = (distillation_loss(x, whole, center, images_per_identity=2)[0] for x in (dropped, whole))
    np.testing.assert_allclose(losses[0], loss, rtol=1e-5)
    assert abs(loss - plain) > 1e-4
    np.testing.assert_allclose(state["center"][0], 0.1 * whole.logits().mean((0, 1)), atol=1e-6)


@pytest.mark.slow
def test_teacher_moves_by_momentum_and_keeps_its_own_statistics():
    optimizer = optax.sgd(0.05)
    _, before = create_state(network(), optimizer)
    before = jax.device_get(before)
    _, after, _ = run(1, optimizer, steps=1)
    expected = jax.tree.map(lambda t, s: 0.9 * t + 0.1 * s, before.teacher, after["student"])
    assert largest_difference(after["teacher"], expected) < 1e-6
    assert largest_difference(after["teacher_stats"], after["student_stats"]) > 1e-3
    tracked = after["student_stats"]["backbone"]["bn1"]["num_batches_tracked"]
    assert tracked == 2 and after["teacher_stats"]["backbone"]["bn1"]["num_batches_tracked"] == 1


@pytest.mark.slow
def test_state_is_donated():
    optimizer = optax.sgd(0.05)
    mesh = make_mesh(jax.devices()[:1])
    structure, state = create_state(network("vit_test"), optimizer)
    state = replicate(state, mesh)
    step = make_train_step(
        structure, optimizer, mesh=mesh, make_views=views_of, momentum=lambda s: 0.9,
        images_per_identity=2, loss=LossSettings(),
    )  # fmt: skip
    batch = shard_batch({"images": np.zeros((4, 64, 32, 3), np.float32)}, mesh)
    memory = step.lower(state, batch).compile().memory_analysis()
    kept = sum(x.nbytes for x in jax.tree.leaves((state.student, state.teacher, state.optimizer)))
    assert memory.alias_size_in_bytes >= kept


def toy_params():
    return {
        "backbone": {"conv": {"kernel": jnp.full((3, 2), 0.5), "bias": jnp.ones(2)}, "bn": {"scale": jnp.ones(2)}},
        "head": {"last_layer": {"weight_v": jnp.full((2, 2), 0.25)}},
    }


def test_parameter_groups():
    assert parameter_groups(toy_params()) == {
        "backbone": {"conv": {"kernel": "decayed", "bias": "plain"}, "bn": {"scale": "plain"}},
        "head": {"last_layer": {"weight_v": "last_layer"}},
    }


@pytest.mark.parametrize("model", list_models("*_test"))
def test_parameter_groups_are_those_of_the_pytorch_model(model):
    """PyTorch groups by name and shape. Tensors correspond one to one, which clipping per tensor needs too."""
    backbone = nnx.eval_shape(lambda: create_model(model))
    params = nnx.as_pure(nnx.state(backbone, nnx.Param))
    ours = Counter(zip(jax.tree.leaves(parameter_groups(params)), (x.size for x in jax.tree.leaves(params))))
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    theirs = Counter(
        ("plain" if len(shape) == 1 or key.endswith(".bias") else "decayed", int(np.prod(shape)))
        for key, (shape, dtype) in signature(backbone).items()
        if not key.endswith(buffers) and np.issubdtype(dtype, np.floating)
    )
    assert ours == theirs


def adamw_by_hand(p, gradients, rates, decays, clip=3.0):
    """PyTorch's AdamW on one tensor in float64; a step with a gradient of None is skipped."""
    p, m, v, t = np.float64(p), 0.0, 0.0, 0
    for g, rate, decay in zip(gradients, rates, decays):
        if g is None:
            continue
        g = np.float64(g) * min(1.0, clip / (np.linalg.norm(g) + 1e-6))
        t += 1
        p = p * (1 - rate * decay)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p = p - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p


def test_optimizer_equals_adamw_by_hand_with_a_late_last_layer():
    rates, decays, frozen = [0.1, 0.2, 0.3, 0.2, 0.1], [0.0, 0.1, 0.2, 0.3, 0.4], 2
    as_schedule = lambda values: lambda step: jnp.asarray(values)[jnp.minimum(step, 4)]  # noqa: E731
    optimizer = make_optimizer(as_schedule(rates), as_schedule(decays), freeze_last_layer_steps=frozen)
    params = toy_params()
    state = optimizer.init(params)
    rng = np.random.default_rng(0)
    gradients = [jax.tree.map(lambda p: 4 * rng.normal(size=p.shape), params) for _ in rates]
    for gradient in gradients:
        updates, state = optimizer.update(jax.tree.map(jnp.asarray, gradient), state, params)
        params = optax.apply_updates(params, updates)
    start = toy_params()

    def expected(get, decayed, frozen=0):
        series = [None if i < frozen else np.asarray(get(g)) for i, g in enumerate(gradients)]
        return adamw_by_hand(get(start), series, rates, decays if decayed else [0.0] * 5)

    kernel = lambda t: t["backbone"]["conv"]["kernel"]  # noqa: E731
    bias = lambda t: t["backbone"]["conv"]["bias"]  # noqa: E731
    last = lambda t: t["head"]["last_layer"]["weight_v"]  # noqa: E731
    np.testing.assert_allclose(kernel(params), expected(kernel, True), rtol=5e-5)
    np.testing.assert_allclose(bias(params), expected(bias, False), rtol=5e-5)
    np.testing.assert_allclose(last(params), expected(last, True, frozen), rtol=5e-5)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_head_keys_and_unit_prototypes(batch_norm):
    head = network(batch_norm=batch_norm).head
    x = np.random.default_rng(0).normal(size=(5, head.mlp.layers[0].kernel.shape[0]))
    vectors, prototypes = head(jnp.asarray(x, jnp.float32))
    assert vectors.shape == (5, 16) and prototypes.shape == (32, 16)
    for unit in (vectors, prototypes):
        np.testing.assert_allclose(jnp.linalg.norm(unit, axis=-1), 1, rtol=1e-5)
    linear = [i for i, layer in enumerate(head.mlp.layers) if hasattr(layer, "kernel")]
    assert linear == ([0, 3, 6] if batch_norm else [0, 2, 4])


if __name__ == "__main__":
    start_up()
    result = run(8, sgd())
    if is_primary():
        Path(sys.argv[1]).write_bytes(pickle.dumps(result))
