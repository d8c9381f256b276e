"""Six training steps of the released recipe, step by step, in float32 against float64.

The stored values were measured on the authors' released PyTorch modules; tests/reference/README.md says how.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax.conversion import load_state_dict, signature
from cion_jax.distillation.head import Head
from cion_jax.distillation.optimizer import make_optimizer
from cion_jax.distillation.schedules import cosine_schedule
from cion_jax.distillation.step import LossSettings, Network, create_state, make_train_step
from cion_jax.models import create_model
from cion_jax.runtime.mesh import make_mesh, replicate, shard_batch
from tests.refweights import image, uniform, weight

FOLDER = Path(__file__).parent / "reference"
STEPS = json.loads((FOLDER / "trajectory_vit_tiny.json").read_text())["vit_tiny"]
FINAL = np.load(FOLDER / "trajectory_vit_tiny.npz")
STEPS_PER_EPOCH, TOTAL_STEPS = 3, 12


def head_weight(name, shape):
    u = uniform(f"head.{name}", shape)
    if name.endswith("bias"):
        return 0.1 * (2 * u - 1)
    return (2 * u - 1) * np.sqrt(3.0 / shape[1])


def reference_network():
    backbone = create_model("vit_tiny")
    load_state_dict(
        backbone,
        {
            key: np.zeros((), dtype) if key.endswith("num_batches_tracked") else weight(key, shape).astype(np.float32)
            for key, (shape, dtype) in signature(backbone).items()
        },
    )
    head = Head(192, 512, rngs=nnx.Rngs(0))
    head_shapes = signature(head)
    load_state_dict(head, {k: head_weight(k, shape).astype(np.float32) for k, (shape, _) in head_shapes.items()})
    assert list(head_shapes) == [
        *(f"mlp.{i}.{leaf}" for i in (0, 2, 4) for leaf in ("weight", "bias")),
        "last_layer.weight_v",
    ]
    return Network(backbone, head)


def batch(step):
    """NHWC, images first, so that they can be split over devices."""
    views = [[f"global{v}" for v in (0, 1)], [f"local{v}" for v in (0, 1)]]
    sizes = [(256, 128), (128, 64)]
    stacks = [
        np.stack([image(f"step{step}/{name}", (8, 3, *size)).transpose(0, 2, 3, 1) for name in names], 1)
        for names, size in zip(views, sizes)
    ]
    return [stack.astype(np.float32) for stack in stacks]


@pytest.mark.slow
def test_vit_tiny_follows_the_released_run():
    optimizer = make_optimizer(
        cosine_schedule(1e-3, 1e-6, TOTAL_STEPS, warmup_steps=STEPS_PER_EPOCH),
        cosine_schedule(0.04, 0.4, TOTAL_STEPS),
        clip_norm=3.0,
        freeze_last_layer_steps=STEPS_PER_EPOCH,
    )
    mesh = make_mesh(jax.devices()[:2])
    structure, state = create_state(reference_network(), optimizer)
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

    with jax.default_matmul_precision("highest"):
        functions = [step_function(2)] * 3 + [step_function(4)] * 3
        for index, (stored, function) in enumerate(zip(STEPS, functions)):
            state, metrics = function(state, shard_batch(batch(index), mesh))
            np.testing.assert_allclose(metrics["loss"], stored["loss"], rtol=1e-5, err_msg=f"step {index}")
        check_final(structure, state)


def check_final(structure, state):
    np.testing.assert_allclose(state.center, FINAL["center"], atol=1e-4)
    x = jnp.asarray(image("global", (2, 3, 256, 128)).transpose(0, 2, 3, 1), jnp.float32)
    for name in ("student", "teacher"):
        network = nnx.merge(structure, *jax.device_get((getattr(state, name), getattr(state, f"{name}_stats"))))
        network.eval()
        difference = np.abs(np.asarray(network.backbone(x)) - FINAL[name]).max()
        assert difference / FINAL[name].std() < 1e-4, name
