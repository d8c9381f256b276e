"""Six training steps of the released recipe, step by step, in float32 against float64.

Those of vit_tiny were measured on the authors' released PyTorch modules; tests/reference/README.md says how. For
BatchNorm there is the same recipe written in PyTorch here (tests/pytorch_recipe.py).
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from cion_jax.conversion import load_state_dict, signature, state_dict
from cion_jax.distillation.head import Head
from cion_jax.distillation.optimizer import make_optimizer
from cion_jax.distillation.schedules import cosine_schedule
from cion_jax.distillation.step import LossSettings, Network, create_state, make_train_step
from cion_jax.models import create_model
from cion_jax.models.resnet import MODELS
from cion_jax.runtime.mesh import make_mesh, replicate, shard_batch
from tests import pytorch_recipe
from tests.refweights import image, uniform, weight

FOLDER = Path(__file__).parent / "reference"
STEPS = json.loads((FOLDER / "trajectory_vit_tiny.json").read_text())["vit_tiny"]
FINAL = np.load(FOLDER / "trajectory_vit_tiny.npz")
STEPS_PER_EPOCH, TOTAL_STEPS = 3, 12
IMAGES_PER_IDENTITY = [2, 2, 2, 4, 4, 4]


def head_weight(name, shape):
    u = uniform(f"head.{name}", shape)
    if name.endswith("bias"):
        return 0.1 * (2 * u - 1)
    return (2 * u - 1) * np.sqrt(3.0 / shape[1])


def backbone_weights(backbone):
    return {
        key: np.zeros((), dtype) if key.endswith("num_batches_tracked") else weight(key, shape).astype(np.float32)
        for key, (shape, dtype) in signature(backbone).items()
    }


def reference_network(model, **head_settings):
    """A network with the reference's weights, and those as PyTorch names them."""
    backbone = create_model(model)
    head = Head(backbone.embed_dim, 512, rngs=nnx.Rngs(0), **head_settings)
    of_backbone = backbone_weights(backbone)
    of_head = {key: head_weight(key, shape).astype(np.float32) for key, (shape, _) in signature(head).items()}
    assert list(of_head) == [
        *(f"mlp.{i}.{leaf}" for i in (0, 2, 4) for leaf in ("weight", "bias")),
        "last_layer.weight_v",
    ]
    load_state_dict(backbone, of_backbone)
    load_state_dict(head, of_head)
    return Network(backbone, head), of_backbone, of_head


def batch(step, size=(256, 128)):
    """Two global and two local views, NHWC, images first, so that they can be split over devices."""
    views = [[f"global{v}" for v in (0, 1)], [f"local{v}" for v in (0, 1)]]
    sizes = [size, (size[0] // 2, size[1] // 2)]
    stacks = [
        np.stack([image(f"step{step}/{name}", (8, 3, *size)).transpose(0, 2, 3, 1) for name in names], 1)
        for names, size in zip(views, sizes)
    ]
    return [stack.astype(np.float32) for stack in stacks]


def train(network, batches, devices=2):
    """Six steps of ours: the losses, the network's structure and the state."""
    optimizer = make_optimizer(
        cosine_schedule(1e-3, 1e-6, TOTAL_STEPS, warmup_steps=STEPS_PER_EPOCH),
        cosine_schedule(0.04, 0.4, TOTAL_STEPS),
        clip_norm=3.0,
        freeze_last_layer_steps=STEPS_PER_EPOCH,
    )
    mesh = make_mesh(jax.devices()[:devices])
    structure, state = create_state(network, optimizer)
    state = replicate(state, mesh)

    def step_function(k):
        return make_train_step(
            structure,
            optimizer,
            mesh=mesh,
            make_views=lambda batch, *_: tuple(jnp.moveaxis(x, 1, 0) for x in batch),
            momentum=cosine_schedule(0.996, 1.0, TOTAL_STEPS),
            images_per_identity=k,
            loss=LossSettings(form="released"),
        )

    losses, functions = [], {k: step_function(k) for k in IMAGES_PER_IDENTITY}
    with jax.default_matmul_precision("highest"):
        for k, views in zip(IMAGES_PER_IDENTITY, batches):
            state, metrics = functions[k](state, shard_batch(views, mesh))
            losses.append(float(metrics["loss"]))
    return losses, structure, jax.device_get(vars(state))


@pytest.mark.slow
def test_vit_tiny_follows_the_released_run():
    losses, structure, state = train(reference_network("vit_tiny")[0], [batch(step) for step in range(6)])
    np.testing.assert_allclose(losses, [step["loss"] for step in STEPS], rtol=1e-5)
    np.testing.assert_allclose(state["center"], FINAL["center"], atol=1e-4)
    x = jnp.asarray(image("global", (2, 3, 256, 128)).transpose(0, 2, 3, 1), jnp.float32)
    for name in ("student", "teacher"):
        network = nnx.merge(structure, state[name], state[f"{name}_stats"])
        network.eval()
        difference = np.abs(np.asarray(network.backbone(x)) - FINAL[name]).max()
        assert difference / FINAL[name].std() < 1e-4, name


@pytest.mark.slow
def test_a_resnet_ibn_follows_the_recipe_in_pytorch():
    network, of_backbone, of_head = reference_network("resnet_ibn_test", hidden_dim=64, bottleneck_dim=16)
    batches = [batch(step, size=(64, 32)) for step in range(6)]
    losses, structure, state = train(network, batches)
    theirs = pytorch_recipe.Network(
        pytorch_recipe.ResNet(MODELS["resnet_ibn_test"]), pytorch_recipe.Head(64, 64, 16, 512)
    ).double()
    theirs.backbone.load_state_dict(tensors(of_backbone))
    theirs.head.load_state_dict(tensors(of_head))
    expected, teacher, center = pytorch_recipe.train(
        theirs,
        [[torch.tensor(x).double().permute(1, 0, 4, 2, 3) for x in views] for views in batches],
        IMAGES_PER_IDENTITY,
        steps_per_epoch=STEPS_PER_EPOCH,
        total_steps=TOTAL_STEPS,
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(state["center"][0], center, atol=1e-5)
    for name, module in (("student", theirs), ("teacher", teacher)):
        ours = state_dict(nnx.merge(structure, state[name], state[f"{name}_stats"]).backbone)
        for key, value in module.backbone.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                np.testing.assert_allclose(ours[key], value, rtol=1e-3, atol=1e-4, err_msg=f"{name} {key}")


def tensors(arrays):
    return {key: torch.tensor(value) for key, value in arrays.items()}
