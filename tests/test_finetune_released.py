"""Networks, parameter groups and training steps of fine-tuning against the released TransReID, in float64."""

import collections
import gzip
import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax.configs import finetune
from cion_jax.conversion import load_state_dict, signature, state_dict
from cion_jax.distillation.schedules import Curriculum, Stage
from cion_jax.finetuning.network import NeckClassifier
from cion_jax.finetuning.optimizer import parameter_groups
from cion_jax.finetuning.positions import fitted_positions
from cion_jax.finetuning.step import create_state, make_train_step
from cion_jax.finetuning.supervised import Supervised
from cion_jax.finetuning.weights import create_backbone
from cion_jax.models import list_models
from cion_jax.models.definition_order import record_definition_order
from cion_jax.runtime.mesh import make_mesh, replicate, shard_batch
from tests.refweights import image, weight

FOLDER = Path(__file__).parent / "reference" / "finetune"
STATE_DICTS = json.loads(gzip.decompress((FOLDER / "transreid_state_dicts.json.gz").read_bytes()))
GROUPS = json.loads((FOLDER / "transreid_schedule.json").read_text())["groups"]
TRAJECTORIES = json.loads((FOLDER / "transreid_trajectory.json").read_text())
# The other trajectories agree as well, but a minute of compilation is enough.
FOLLOWED = ("resnet18_ibn/released", "resnet18_ibn/strong", "vit_tiny/strong", "convnext_tiny/strong")
FINAL = np.load(FOLDER / "transreid_trajectory.npz")
FEATURES, EVALUATED = np.load(FOLDER / "transreid_eval.npz"), json.loads((FOLDER / "transreid_eval.json").read_text())
PRETRAINED = (256, 128)  # image size of the position tables in pre-training checkpoints


class OnFinishedImages(Supervised):
    """The method, for batches of images that are augmented already."""

    def augment(self, images, sizes, keys):
        return images


@pytest.fixture
def double_precision(monkeypatch):
    """float64, in attention too: JAX computes its softmax in float32 whatever the inputs are."""

    def attention(query, key, value, bias=None):
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
        weights = jax.nn.softmax(logits if bias is None else logits + bias)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, value)

    monkeypatch.setattr(jax.nn, "dot_product_attention", attention)
    with jax.enable_x64(True):
        yield


def nhwc(images):
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def network(model, *, size, classes, resample, fresh_neck):
    """A float64 network with the weights of the reference."""
    base = create_backbone(model, size=size, resample_positions=resample, dtype=jnp.float64)
    net = NeckClassifier(base, classes, rngs=nnx.Rngs(0))
    record_definition_order(net)
    for _, variable in nnx.iter_graph(net):
        if isinstance(variable, nnx.Variable) and jnp.issubdtype(variable.dtype, jnp.floating):
            variable.set_value(jnp.asarray(variable.get_value(), jnp.float64))
    arrays = state_dict(net)
    for key, value in arrays.items():
        of_backbone, name = key.startswith("base."), key.removeprefix("base.")
        if np.issubdtype(value.dtype, np.floating) and (of_backbone or not fresh_neck or "classifier" in key):
            arrays[key] = weight(name, value.shape)
        if name == "pos_embed" and model.startswith("vit"):
            table = (1, 1 + PRETRAINED[0] // 16 * (PRETRAINED[1] // 16), value.shape[2])
            arrays[key] = fitted_positions(weight(name, table), base.grid)
    load_state_dict(net, arrays)
    return net


def applied(net, part, x):
    """`part(net, x)`, compiled as one program."""
    net.eval()
    graph, state = nnx.split(net)
    return np.asarray(jax.jit(lambda state, x: part(nnx.merge(graph, state), x))(state, jnp.asarray(x)))


@pytest.mark.parametrize("model", [name for name in list_models() if not name.endswith("_test")])
def test_state_dicts_have_the_released_keys_in_order(model):
    expected = STATE_DICTS[model]

    def build():
        net = NeckClassifier(create_backbone(model), 751, rngs=nnx.Rngs(0))
        record_definition_order(net)
        return net

    tensors = signature(nnx.eval_shape(build))
    keys = list(tensors)
    assert len(keys) == expected["n_keys"]
    assert keys[-6:] == [key for key, *_ in expected["after_base"]]
    assert hashlib.sha256("\n".join(keys).encode()).hexdigest() == expected["sha256_of_keys"]
    if "state_dict" in expected:
        assert [[key, list(shape)] for key, (shape, _) in tensors.items()] == expected["state_dict"]


@pytest.mark.parametrize("name", GROUPS)
def test_parameter_groups_are_the_released_ones(name):
    model, _, large = name.partition("/large_fc_lr=")
    shapes = nnx.eval_shape(lambda: NeckClassifier(create_backbone(model), 751, rngs=nnx.Rngs(0)))
    params = nnx.as_pure(nnx.state(shapes, nnx.Param))
    counts = collections.Counter(jax.tree.leaves(parameter_groups(params, large_classifier_rate=large == "True")))
    expected = {
        group: GROUPS[name]["groups"].get(settings, {"count": 0})["count"]
        for group, settings in {
            "weight": "lr_factor=1,weight_decay=0.0001",
            "bias": "lr_factor=2,weight_decay=0.0003",
            "classifier": "lr_factor=2,weight_decay=0.0001",
        }.items()
    }
    assert counts == collections.Counter({**expected, "fixed": 1})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "size", "key", "resample"),
    [
        ("resnet50_ibn", (128, 64), "resnet50_ibn/before", False),
        ("vit_tiny", (128, 64), "vit_tiny/before", True),
        ("vit_tiny", (128, 64), "vit_tiny/tuple/before", False),
        ("vit_tiny", (256, 128), "vit_tiny_256x128/list", True),
        ("vit_tiny", (256, 128), "vit_tiny_256x128/tuple", False),
        ("convnext_tiny", (128, 64), "convnext_tiny/before", False),
    ],
)
def test_test_features_are_the_released_ones(model, size, key, resample, double_precision):
    net = network(model, size=size, classes=751, resample=resample, fresh_neck=False)
    before = applied(net, lambda net, x: net(x), nhwc(image("ft/eval", (2, 3, *size))))
    assert np.abs(before - FEATURES[key]).max() / FEATURES[key].std() < 1e-9
    if key.endswith("/before"):
        expected, after = EVALUATED[key.removesuffix("/before")], np.asarray(net.bottleneck(jnp.asarray(before)))
        np.testing.assert_allclose(after[:, :8], expected["after_first8"], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(after, axis=1), expected["after_norm"], rtol=1e-9)


def method_of(case):
    config = finetune.get_config("market1501/vit_base").supervised
    config.optimizer.update(
        learning_rate=case["base_lr"],
        weight_decay=case["weight_decay"],
        weight_decay_bias=case["weight_decay_bias"],
        warmup_epochs=case["warmup"],
    )
    return OnFinishedImages(config)


def trained(case, devices=1):
    """Six steps: metrics of each, and the network after them."""
    resample = case["size_given_as"].startswith("list") and case["model"].startswith("vit")
    net = network(case["model"], size=tuple(case["size"]), classes=case["classes"], resample=resample, fresh_neck=True)
    method = method_of(case)
    plan = Curriculum((Stage(case["instances"], 0, case["epochs"], 0, case["steps_per_epoch"]),))
    optimizer, mesh = method.optimizer(plan), make_mesh(jax.devices()[:devices])
    structure, state = create_state(net, optimizer, {}, np.zeros(0, np.int32))
    state = replicate(state, mesh)
    step = make_train_step(structure, optimizer, method, mesh=mesh)
    metrics = []
    for number, expected in enumerate(case["steps"]):
        batch = {
            "images": nhwc(image(f"ft/step{number}", (case["batch"], 3, *case["size"]))),
            "sizes": np.zeros((case["batch"], 2), np.int32),
            "labels": np.asarray(expected["labels"], np.int32),
        }
        state, measured = step(state, shard_batch(batch, mesh))
        metrics.append({name: float(value) for name, value in measured.items()})
    return metrics, nnx.merge(structure, *jax.device_get((state.params, state.stats)))


def name_of(case):
    tuple_ = "/tuple" if case["size_given_as"].startswith("tuple") else ""
    return f"{case['model']}/{case['kind']}{tuple_}"


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in TRAJECTORIES if name_of(case) in FOLLOWED], ids=name_of)
def test_training_follows_the_released_code(case, double_precision):
    metrics, net = trained(case)
    for name, ours in {"loss": "loss", "cross_entropy": "identity_loss", "triplet": "triplet_loss"}.items():
        expected = [step[name] for step in case["steps"]]
        np.testing.assert_allclose([step[ours] for step in metrics], expected, rtol=1e-8, err_msg=name)
    probe = applied(net, lambda net, x: net(x), nhwc(image("ft/probe", (2, 3, *case["size"]))))
    expected = FINAL[f"{name_of(case)}/probe_before"]
    assert np.abs(probe - expected).max() / expected.std() < 1e-7
    np.testing.assert_allclose(net.bottleneck.mean[...], FINAL[f"{name_of(case)}/running_mean"], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(net.bottleneck.var[...], FINAL[f"{name_of(case)}/running_var"], rtol=1e-7)
    assert not np.asarray(net.bottleneck.bias[...]).any()
