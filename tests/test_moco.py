"""MoCo's loss, queue and step: against PyTorch's cross entropy, by hand, and on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

from cion_jax.distillation.moco import (
    ContrastiveNetwork,
    contrastive_loss,
    create_contrastive_state,
    enqueue,
    make_contrastive_step,
)
from cion_jax.models import create_model
from cion_jax.models.normalization import l2_normalize
from cion_jax.runtime.mesh import make_mesh, replicate, shard_batch

DIM, QUEUE, BATCH = 8, 32, 16


def unit(*shape, seed):
    x = np.random.default_rng(seed).normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_loss_and_gradient_are_those_of_pytorchs_cross_entropy():
    queries, keys, queue = unit(6, DIM, seed=0), unit(6, DIM, seed=1), unit(QUEUE, DIM, seed=2)
    (loss, accuracy), gradient = jax.value_and_grad(contrastive_loss, has_aux=True)(
        *(jnp.asarray(x, jnp.float32) for x in (queries, keys, queue)), 0.1
    )
    q, k, n = (torch.from_numpy(x) for x in (queries, keys, queue))
    q.requires_grad_()
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ n.T], dim=1) / 0.1
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(6, dtype=torch.long))
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-6)
    assert q.grad is not None
    np.testing.assert_allclose(gradient, q.grad.numpy(), rtol=1e-4, atol=1e-6)
    assert float(accuracy) == float((logits.argmax(1) == 0).float().mean())


def test_keys_replace_the_oldest_ones_and_no_gradient_reaches_them():
    queue = jnp.zeros((6, 1))
    for step in range(4):
        queue = enqueue(queue, jnp.full((2, 1), step + 1.0), jnp.asarray(step))
    assert queue[:, 0].tolist() == [4, 4, 2, 2, 3, 3]
    gradients = jax.grad(lambda k, n: contrastive_loss(jnp.ones((2, 1)), k, n, 0.1)[0], argnums=(0, 1))
    assert all(not np.asarray(x).any() for x in gradients(jnp.ones((2, 1)), queue))


def test_a_zero_row_has_no_direction_and_no_nan():
    assert l2_normalize(jnp.asarray([[0.0, 0.0], [3.0, 4.0]])).tolist() == [
        [0, 0],
        [0.6000000238418579, 0.800000011920929],
    ]


def run(devices, steps=2):
    backbone = create_model("resnet_test", rngs=nnx.Rngs(0))
    network = ContrastiveNetwork(backbone, backbone.embed_dim, DIM, rngs=nnx.Rngs(1))
    optimizer = optax.sgd(1e-3, momentum=0.9)
    structure, state = create_contrastive_state(network, optimizer, queue_size=QUEUE, dim=DIM, seed=0)
    mesh = make_mesh(jax.devices()[:devices])
    step = make_contrastive_step(
        structure,
        optimizer,
        mesh=mesh,
        make_views=lambda batch, step, positions: (jnp.stack([batch, batch[:, :, ::-1]]), None),
        momentum=lambda step: jnp.asarray(0.9),
        temperature=0.1,
    )
    states, metrics = [jax.device_get(vars(state))], {}
    state = replicate(state, mesh)
    for number in range(steps):
        images = np.random.default_rng(number).normal(size=(BATCH, 64, 32, 3)).astype(np.float32)
        state, metrics = step(state, shard_batch(images, mesh))
        states.append(jax.device_get(vars(state)))
    return states, jax.device_get(metrics)


def assert_moved_alike(found, expected, start):
    """Within 20 % of the way from `start`: rounding turns a ReLU on or off, which was seen to change it by 5 %."""
    np.testing.assert_allclose(found, expected, atol=max(1e-5, 0.2 * np.abs(expected - start).max()))


@pytest.mark.slow
def test_eight_devices_equal_one_and_the_teacher_follows_the_student():
    (first, _, last), metrics = run(1)
    sharded, sharded_metrics = run(8)
    for name, value in metrics.items():
        # The gradient jumps where rounding turns a ReLU on or off; an error in sharding would be a factor.
        rtol = 1e-3 if name == "gradient_norm" else 1e-5
        np.testing.assert_allclose(sharded_metrics[name], value, rtol=rtol, err_msg=name)
    for part in ("student", "teacher", "student_stats", "teacher_stats", "queue"):
        jax.tree.map(assert_moved_alike, sharded[-1][part], last[part], first[part])
    # teacher_2 = 0.9 (0.9 s_0 + 0.1 s_1) + 0.1 s_2
    kernels = [state["student"]["fc"]["layers"][2]["kernel"] for state in sharded]
    expected = 0.81 * kernels[0] + 0.09 * kernels[1] + 0.1 * kernels[2]
    np.testing.assert_allclose(sharded[-1]["teacher"]["fc"]["layers"][2]["kernel"], expected, atol=1e-6)
    assert np.abs(kernels[2] - kernels[0]).max() > 1e-5
    np.testing.assert_array_equal(last["queue"][BATCH * 2 :], first["queue"][BATCH * 2 :])
    np.testing.assert_allclose(np.linalg.norm(last["queue"], axis=1), 1, atol=1e-5)
    assert np.abs(last["queue"] - first["queue"]).max(axis=1).min() > 0.01  # every key has been replaced
