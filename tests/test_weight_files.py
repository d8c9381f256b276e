"""Weight files for and from others: safetensors, whole checkpoints, the released loaders, cards, runs of our own."""

import hashlib
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from flax import nnx

from cion_jax.configs import base
from cion_jax.conversion import load_state_dict, load_weights, read_weights, signature, state_dict, write_weights
from cion_jax.conversion import weights as weights_module
from cion_jax.conversion.candidates import fitting_models
from cion_jax.conversion.loaders import loader_defects, loader_prefix
from cion_jax.conversion.weights import read_file, reidzoo_prefix
from cion_jax.convert import convert
from cion_jax.distillation.head import Head
from cion_jax.distillation.optimizer import make_optimizer
from cion_jax.distillation.run_weights import head_state_dict, read_run
from cion_jax.distillation.step import Network, create_state
from cion_jax.models import create_model, list_models
from cion_jax.models.registry import reidzoo
from cion_jax.runtime.checkpoints import Checkpoints
from tests.weights import as_tensors, assert_same, changed_state_dict, released_checkpoint

TEST_MODELS = list_models("*_test")


def loaded(name, path, **options):
    model = create_model(name, **options)
    load_weights(model, path)
    return model


def changed_model(name):
    model = create_model(name)
    load_state_dict(model, changed_state_dict(name))
    return model


# safetensors


@pytest.mark.parametrize("name", ["resnet_ibn_test", "swin_test", "convnext_test"])
def test_safetensors_are_written_and_read_bit_by_bit(name, tmp_path):
    arrays = changed_state_dict(name)
    write_weights(changed_model(name), tmp_path / "w.safetensors", about={"model": name})
    others = safetensors.torch.load_file(tmp_path / "w.safetensors")
    assert_same({key: others[key].numpy() for key in arrays}, arrays)
    with safetensors.safe_open(tmp_path / "w.safetensors", "np") as file:
        assert file.metadata() == {"model": name}
    assert_same(state_dict(loaded(name, tmp_path / "w.safetensors")), arrays)
    torch.save(others, tmp_path / "bare.pth")
    got, _ = read_weights(tmp_path / "bare.pth")
    assert_same({key: got[key] for key in arrays}, arrays)


def test_safetensors_of_others_are_read(tmp_path):
    tensors = as_tensors(changed_state_dict("vit_test"), "module.backbone.")
    halves = {key: value.bfloat16() if value.is_floating_point() else value for key, value in tensors.items()}
    safetensors.torch.save_file(halves, tmp_path / "w.safetensors")
    got, where = read_weights(tmp_path / "w.safetensors")
    assert where == "a bare state dict, keys under 'module.backbone.'"
    assert got["cls_token"].dtype == ml_dtypes.bfloat16
    model = create_model("vit_test")
    load_weights(model, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(model.cls_token[...], halves["module.backbone.cls_token"].float().numpy())


def test_damaged_safetensors_are_refused(tmp_path):
    write_weights(create_model("resnet_test"), tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    for length in (7, 8, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "x.safetensors").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"x\.safetensors: not a whole safetensors file"):
            read_weights(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 8 + content[8:])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        read_weights(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"y\.safetensors: no such file"):
        read_weights(tmp_path / "y.safetensors")


# Which network of a file


def full_checkpoint(name, new_format=True):
    """A training checkpoint of the released code: teacher, student and heads of 65,336 prototypes, optimizer, settings.

    The heads are narrow, to keep the file small.
    """
    teacher = changed_state_dict(name)
    student = {key: value + np.asarray(1, value.dtype) for key, value in teacher.items()}
    head = {
        "mlp.0.weight": torch.randn(8, 6),
        "mlp.0.bias": torch.randn(8),
        "last_layer.weight_g": torch.ones(65336, 1),
        "last_layer.weight_v": torch.randn(65336, 2),
    }
    content = released_checkpoint(teacher)
    for network, arrays in (("teacher", teacher), ("student", student)):
        content[network] = as_tensors(arrays, "module.backbone.")
        content[network] |= {f"module.head.{key}": value for key, value in head.items()}
    return content, teacher, student, {key: value.numpy() for key, value in head.items()}


def test_teacher_or_student_of_a_whole_checkpoint(tmp_path):
    content, teacher, student, head = full_checkpoint("resnet_ibn_test")
    torch.save(content, tmp_path / "w.pth")
    for which, expected in (("teacher", teacher), ("student", student)):
        got, where = read_weights(tmp_path / "w.pth", which=which)
        assert_same(got, expected)
        assert where == f"section {which!r}, keys under 'module.backbone.'"
    with_head = read_file(tmp_path / "w.pth", which="student", with_head=True)
    assert_same(with_head.backbone, student)
    assert_same(with_head.head, head)


def test_a_network_that_a_file_does_not_have(tmp_path):
    arrays = as_tensors(changed_state_dict("resnet_test"))
    for content, which, message in (
        ({"teacher": arrays}, "student", "it has no student; give --which=teacher"),
        ({"student": arrays}, "teacher", "it has no teacher; give --which=student"),
        ({"model": arrays}, "student", "it has no student; the networks in it are not named"),
        ({"teacher": arrays}, "pupil", "--which=pupil is unknown; choose teacher or student"),
    ):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=message):
            read_weights(tmp_path / "w.pth", which=which)


def test_the_head_of_a_checkpoint_is_written_along(tmp_path):
    content, teacher, _, head = full_checkpoint("resnet_ibn_test")
    torch.save(content, tmp_path / "w.pth")
    convert("resnet_ibn_test", tmp_path / "w.pth", tmp_path / "to.pth", with_head=True)
    written = torch.load(tmp_path / "to.pth", weights_only=True)["teacher"]
    assert list(written) == list(content["teacher"])
    for key, value in content["teacher"].items():
        assert torch.equal(written[key], value), key
    convert("resnet_ibn_test", tmp_path / "to.pth", tmp_path / "to.safetensors", with_head=True)
    again = read_file(tmp_path / "to.safetensors", with_head=True)
    assert_same({key: again.backbone[key] for key in teacher}, teacher)
    assert_same({key: again.head[key] for key in head}, head)
    convert("resnet_ibn_test", tmp_path / "to.safetensors", tmp_path / "without.pth")
    assert_same(read_weights(tmp_path / "without.pth")[0], teacher)
    with pytest.raises(ValueError, match="has no projection head; leave --head out"):
        convert("resnet_ibn_test", tmp_path / "without.pth", tmp_path / "x.pth", with_head=True)


# The released loaders, by what they do to keys: each gives what its model's load_state_dict then gets


def transreid(content, name):
    """Cuts 9 characters for three families, 16 for the others."""
    characters = 9 if name.startswith(("convnext", "edgenext", "swin")) else 16
    return {key[characters:]: value for key, value in content["teacher"].items() if "backbone" in key}


def fastreid(content, name):
    assert "teacher" in content
    return {key[16:]: value for key, value in content["teacher"].items() if "backbone" in key}


def cluster_contrast(content, name):
    if name.startswith("vit"):
        keys = {key.replace("module.", ""): value for key, value in content["teacher"].items()}
        return {key.replace("backbone.", ""): value for key, value in keys.items() if key.startswith("backbone.")}
    return {key[16:]: value for key, value in content["teacher"].items() if "backbone" in key}


LOADERS = {"transreid": transreid, "fastreid": fastreid, "cluster-contrast": cluster_contrast}
TAKEN_BY = {
    "transreid": TEST_MODELS,
    "fastreid": [name for name in TEST_MODELS if name.startswith("resnet")],
    "cluster-contrast": [name for name in TEST_MODELS if name.startswith(("resnet", "vit", "swin"))],
}


def _cases():
    quick = ("resnet_test", "resnet_ibn_test", "vit_test", "convnext_test", "swin_test")
    for loader in LOADERS:
        for name in TAKEN_BY[loader]:
            yield pytest.param(loader, name, marks=[] if name in quick else pytest.mark.slow)


@pytest.mark.parametrize(("loader", "name"), list(_cases()))
def test_the_released_loaders_get_exactly_their_models_keys(loader, name, tmp_path):
    arrays = changed_state_dict(name)
    torch.save(as_tensors(arrays), tmp_path / "from.pth")
    report = convert(name, tmp_path / "from.pth", tmp_path / "to.pth", loader=loader)
    content = torch.load(tmp_path / "to.pth", weights_only=True)
    got = LOADERS[loader](content, name)
    assert_same({key: value.numpy() for key, value in got.items()}, arrays)
    assert ("keep their random weights" in report) == (loader == "cluster-contrast" and name == "swin_test")


def test_the_prefix_of_all_models_is_that_of_their_files():
    for name, info in reidzoo().items():
        assert loader_prefix("transreid", name, info.prefix) == info.prefix
        stripped = 9 if name.startswith(("convnext", "edgenext", "swin")) else 16
        assert len(info.prefix) == stripped, name


@pytest.mark.slow
def test_the_prefix_of_every_family_follows_from_its_layers():
    resnets, others = ("resnet18", "resnet18_ibn"), ("convnext_tiny", "edgenext_x_small", "swin_tiny", "vit_tiny")
    for name in (*resnets, *others, "fastvit_s12", "ghostnet_0_5", "repvit_m0_9", "volo_d1"):
        assert reidzoo_prefix(nnx.eval_shape(lambda: create_model(name))) == reidzoo()[name].prefix, name  # noqa: B023


def test_models_unknown_to_a_loader_are_refused():
    for loader, name in (
        ("fastreid", "vit_base"),
        ("cluster-contrast", "volo_d1"),
        ("cluster-contrast", "resnet18_ibn"),
    ):
        with pytest.raises(ValueError, match=f"the released {loader} code has no {name}; it has resnet"):
            loader_prefix(loader, name, "")
    with pytest.raises(ValueError, match="--for=openreid is unknown; choose from reidzoo, transreid"):
        loader_prefix("openreid", "resnet50", "")
    assert loader_defects("transreid", "swin_base") == []


def test_an_unwritable_output_is_refused_before_reading(tmp_path):
    missing = tmp_path / "missing.pth"
    with pytest.raises(ValueError, match=r"that code reads \.pth files"):
        convert("resnet_test", missing, tmp_path / "to.safetensors", loader="transreid")
    with pytest.raises(ValueError, match=r"written as \.pth, \.safetensors or \.stablehlo"):
        convert("resnet_test", missing, tmp_path / "to.bin")
    with pytest.raises(ValueError, match=r"missing\.pth: no such file"):
        convert("resnet_test", missing, tmp_path / "to.pth")


# Misfits


def test_a_misfit_names_the_model_that_fits(tmp_path):
    write_weights(changed_model("vit_test"), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth [^~]*the keys and shapes of vit_test"):
        loaded("resnet_test", tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"the keys and shapes of vit_test"):
        convert("resnet_test", tmp_path / "w.pth", tmp_path / "to.pth")
    arrays = as_tensors(changed_state_dict("vit_test")) | {"fc.weight": torch.ones(3)}
    torch.save(arrays, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"\+ fc\.weight \(3,\)[^~]*no model of this package has exactly these"):
        loaded("vit_test", tmp_path / "w.pth")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "convnext_small", "ghostnet_1_0", "swin_base"])
def test_models_are_recognised_by_keys_and_shapes(name):
    shapes = signature(nnx.eval_shape(lambda: create_model(name)))
    arrays = {key: np.broadcast_to(np.zeros((), dtype), shape) for key, (shape, dtype) in shapes.items()}
    assert fitting_models(arrays) == [name]


def test_weights_with_nan_are_refused(tmp_path):
    arrays = changed_state_dict("resnet_test")
    arrays["layer1.0.conv1.weight"][0, 0] = np.nan
    torch.save(as_tensors(arrays), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"! layer1\.0\.conv1\.weight has 9 values that are NaN or infinite"):
        loaded("resnet_test", tmp_path / "w.pth")


def test_loading_weights_is_silent_and_leaves_the_model_in_training_mode(tmp_path, capsys):
    write_weights(changed_model("resnet_test"), tmp_path / "w.pth")
    capsys.readouterr()
    model = loaded("resnet_test", tmp_path / "w.pth", dtype=jnp.bfloat16)
    assert capsys.readouterr().out == ""
    assert not model.bn1.use_running_average and model.dtype == jnp.bfloat16
    assert_same(state_dict(model), changed_state_dict("resnet_test"))


# Cards


def test_the_card_beside_a_file(tmp_path):
    write_weights(changed_model("resnet_test"), tmp_path / "w.pth", about={"model": "resnet_test", "data": "abc"})
    card = json.loads((tmp_path / "w.pth.json").read_text())
    assert card["sha256"] == hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    parameters = [v for key, v in changed_state_dict("resnet_test").items() if key.endswith(("weight", "bias"))]
    assert card["parameters"] == sum(value.size for value in parameters)
    expected = {"model": "resnet_test", "data": "abc", "embed_dim": 192, "input_size": [256, 128]}
    assert {name: card[name] for name in expected} == expected
    assert (card["mean"], card["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert "Research only" in card["licence"] and card["intended_use"]["commercial_use"] == "not allowed"
    assert set(card["versions"]) == {"cion_jax", "jax", "flax"}
    convert("resnet_test", tmp_path / "w.pth", tmp_path / "w.safetensors")
    assert json.loads((tmp_path / "w.safetensors.json").read_text())["data"] == "abc"


def test_no_card_outlives_its_weights(tmp_path, monkeypatch):
    write_weights(create_model("resnet_test"), tmp_path / "w.pth")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(weights_module, "write_pth", fail)
    with pytest.raises(OSError, match="disk full"):
        write_weights(create_model("vit_test"), tmp_path / "w.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]
    torch.save({"x": torch.ones(1)}, tmp_path / "w.pth")


# Runs of our own


@pytest.fixture(scope="module", params=[("resnet_test", False), ("convnext_test", False), ("convnext_test", True)])
def run(request, tmp_path_factory):
    """The checkpoints folder of a run without training, whose networks differ; its state and its model's name."""
    name, head_norm = request.param
    config = base.get_config()
    config.pretrain.head.update(prototypes=24, hidden_dim=16, bottleneck_dim=8, batch_norm=head_norm)
    rngs = nnx.Rngs(0)
    backbone = create_model(name, rngs=rngs)
    network = Network(backbone, Head(backbone.embed_dim, rngs=rngs, **config.pretrain.head))
    optimizer = make_optimizer(1e-3, 0.1, clip_norm=3.0, freeze_last_layer_steps=0)
    _, state = create_state(network, optimizer)
    tree = vars(state) | {"step": jnp.asarray(7), "student": jax.tree.map(lambda x: x + 1, state.student)}
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(7, tree, {"model": name, "config": config.to_json(), "data": "f" * 64})
    return folder, network, name


@pytest.mark.slow
def test_teacher_student_and_head_of_a_run(run, tmp_path):
    folder, network, name = run
    teacher = read_run(folder, with_head=True)
    assert_same(teacher.backbone, state_dict(network.backbone))
    assert list(teacher.head)[-2:] == ["last_layer.weight_g", "last_layer.weight_v"]
    assert_same(teacher.head, head_state_dict(network.head))
    np.testing.assert_array_equal(teacher.head["mlp.0.weight"], np.asarray(network.head.mlp.layers[0].kernel[...]).T)
    assert teacher.head["last_layer.weight_g"].shape == (24, 1)
    student = read_run(folder, which="student")
    weight = next(key for key in student.backbone if key.endswith("weight"))
    np.testing.assert_array_equal(student.backbone[weight], teacher.backbone[weight] + 1)

    convert(name, folder, tmp_path / "student.pth", which="student", with_head=True)
    content = torch.load(tmp_path / "student.pth", weights_only=True)
    wrapped = name == "resnet_test" or any("running_mean" in key for key in teacher.head)
    prefix = "module." if wrapped else ""  # the released training wraps a teacher with any batch normalisation
    keys = [f"backbone.{key}" for key in teacher.backbone] + [f"head.{key}" for key in teacher.head]
    assert list(content["teacher"]) == [prefix + key for key in keys]
    card = json.loads((tmp_path / "student.pth.json").read_text())
    assert card["data"] == "f" * 64 and card["config"]["pretrain"]["head"]["prototypes"] == 24
    assert card["weights"] == f"student of step 7 of a {name}" and card["model"] == name


@pytest.mark.slow
def test_a_run_of_another_model_is_refused(run, tmp_path):
    folder, _, name = run
    with pytest.raises(ValueError, match=f"the keys and shapes of {name}"):
        convert("vit_test", folder, tmp_path / "to.pth")
    assert not list(tmp_path.iterdir())


# The command


@pytest.mark.slow
def test_every_wrong_input_of_the_command_is_a_sentence(tmp_path):
    write_weights(create_model("resnet_test"), tmp_path / "w.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:5000])
    for arguments, message in (
        (["--model=resnet_tets", f"--from={tmp_path}/w.pth"], "did you mean resnet_test"),
        (["--model=resnet_test", f"--from={tmp_path}/cut.pth"], "truncated or damaged"),
        (["--model=resnet_test"], "give either --from"),
        (["--model=resnet_test", f"--from={tmp_path}/w.pth", "--which=student"], "give --which=teacher"),
        (["--model=vit_test", f"--init={tmp_path}/w.pth"], "no ImageNet weights of this ViT"),
    ):
        command = [sys.executable, "-m", "cion_jax.convert", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2, arguments
        assert message in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
