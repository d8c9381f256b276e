"""Weights between PyTorch and Flax: round trips, common checkpoint formats, malicious files."""

import collections
import pickle
import subprocess
import sys
import zipfile

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from flax import nnx

from cion_jax.conversion import (
    load_state_dict,
    load_weights,
    read_weights,
    state_dict,
    write_weights,
)
from cion_jax.conversion.files.pth_writer import write_pth
from cion_jax.convert import convert
from cion_jax.models import create_model, list_models
from tests.weights import as_tensors, assert_same, changed_state_dict, released_checkpoint

TEST_MODELS = list_models("*_test")


@pytest.mark.parametrize("name", TEST_MODELS)
def test_weights_survive_a_round_trip_through_pytorch_bit_by_bit(name, tmp_path):
    arrays, model = changed_state_dict(name), create_model(name)
    load_state_dict(model, arrays)
    assert_same(state_dict(model), arrays)
    assert list(state_dict(nnx.merge(*nnx.split(model)))) == list(arrays)
    write_weights(model, tmp_path / "w.pth")

    content = torch.load(tmp_path / "w.pth", weights_only=True)
    has_batch_norm = any(key.endswith("running_mean") for key in arrays)
    prefix = "module.backbone." if has_batch_norm else "backbone."
    assert list(content) == ["teacher"]
    assert_same(
        {key: value.numpy() for key, value in content["teacher"].items()},
        {prefix + k: v for k, v in arrays.items()},
    )

    torch.save(content, tmp_path / "again.pth")
    other = create_model(name, rngs=nnx.Rngs(5))
    load_weights(other, tmp_path / "again.pth")
    assert_same(state_dict(other), arrays)


def test_the_same_weights_make_the_same_file(tmp_path):
    for name in ("a.pth", "b.pth"):
        write_weights(create_model("vit_test"), tmp_path / name)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


FORMS = {
    "ReIDZoo": (
        lambda a: {"teacher": as_tensors(a, "module.backbone.")},
        "'teacher', keys under 'module.backbone.'",
    ),
    "ReIDZoo, other prefix": (
        lambda a: {"teacher": as_tensors(a, "backbone.")},
        "'teacher', keys under 'backbone.'",
    ),
    "training checkpoint": (released_checkpoint, "'teacher', keys under 'module.backbone.'"),
    "bare": (as_tensors, "a bare state dict"),
    "ordered": (lambda a: collections.OrderedDict(as_tensors(a)), "a bare state dict"),
    "model": (lambda a: {"model": as_tensors(a), "epoch": 1}, "'model'"),
    "state_dict of a wrapped model": (
        lambda a: {"state_dict": as_tensors(a, "module.")},
        "'state_dict', keys under 'module.'",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_common_file_formats_are_read(form, tmp_path):
    make, expected_where = FORMS[form]
    arrays = changed_state_dict("resnet_ibn_test")
    torch.save(make(arrays), tmp_path / "w.pth")
    got, where = read_weights(tmp_path / "w.pth")
    assert_same(got, arrays)
    assert where.endswith(expected_where)


def test_tensors_of_every_dtype_and_layout_are_read(tmp_path):
    base = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {
        "transposed, sliced": base.transpose(0, 2)[1:, :, 1:],
        "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
        "double": base.double(),
        "half": base.half(),
        "long": base.long() - 7,
        "bool": base > 3,
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(base),
    }
    torch.save(tensors | {"bfloat16": base.bfloat16()}, tmp_path / "w.pth")
    got, _ = read_weights(tmp_path / "w.pth")
    assert got.pop("bfloat16").dtype == ml_dtypes.bfloat16
    assert_same(got, {key: value.detach().numpy() for key, value in tensors.items()})


def test_files_of_before_pytorch_1_6_are_read(tmp_path):
    content = released_checkpoint(changed_state_dict("resnet_ibn_test"))
    for name, new_format in (("old.pth", False), ("new.pth", True)):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=new_format)
    assert not zipfile.is_zipfile(tmp_path / "old.pth")
    assert_same(read_weights(tmp_path / "old.pth")[0], read_weights(tmp_path / "new.pth")[0])


def test_half_precision_files_fill_float32_models(tmp_path):
    model = create_model("vit_test")
    halves = {k: t.half() if t.is_floating_point() else t for k, t in as_tensors(state_dict(model)).items()}
    torch.save(halves, tmp_path / "w.pth")
    load_weights(model, tmp_path / "w.pth")
    assert model.cls_token.dtype == jnp.float32
    np.testing.assert_array_equal(model.cls_token[...], halves["cls_token"].float().numpy())


class Payload:
    """Unpickled by a careless reader, this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    torch.save({"teacher": {"x": torch.ones(2)}, "args": Payload(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"w\.pth: refused, its pickle asks for {open.__module__}\.open"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    ["builtins.eval", "os.system", "torch.load", "numpy.load", "torch._utils.eval", "runpy.run_path"],
)
def test_other_names_are_refused(name, tmp_path):
    module, attribute = name.rsplit(".", 1)
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("archive/data.pkl", f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(ValueError, match=f"refused, its pickle asks for {name}"):
        read_weights(tmp_path / "w.pth")


def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path):
    write_pth(tmp_path / "w.pth", {"teacher": {"x": np.ones((3, 4), np.float32)}})
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["archive/data/0"] = parts["archive/data/0"][:-4]
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"shape \(3, 4\) cannot be read: it reaches outside its storage of 11"):
        read_weights(tmp_path / "w.pth")


def damaged_files(folder):
    whole = folder / "whole.pth"
    write_weights(create_model("vit_test"), whole)
    content = bytearray(whole.read_bytes())
    yield "truncated", bytes(content[: len(content) // 2]), "truncated or damaged .pth archive"
    middle = len(content) // 2
    content[middle] ^= 0xFF
    yield "a flipped bit", bytes(content), "truncated or damaged .pth archive"
    yield "empty", b"", r"is empty \(0 bytes\); copy or download it again"
    yield "text", b"weights, in a way", r"not a weight file: neither of torch\.save .* nor safetensors"
    yield "another pickle", pickle.dumps({"x": 1}, protocol=2), "a pickle, but not one of torch.save.*convert it once"
    old = folder / "old.pth"
    torch.save({"x": torch.ones(2), "y": torch.ones(3)}, old, _use_new_zipfile_serialization=False)
    yield "truncated stream", old.read_bytes()[:-4], "truncated or damaged"
    yield "truncated stream's pickle", old.read_bytes()[:60], "not a pickle, or a damaged one"


@pytest.mark.parametrize("new_format", [True, False])
def test_no_damage_goes_further_than_a_clear_error(new_format, tmp_path):
    whole, damaged = tmp_path / "whole.pth", tmp_path / "damaged.pth"
    tensors = {f"layer{i}.weight": torch.randn(7, 5, i + 1) for i in range(3)}
    torch.save({"teacher": tensors}, whole, _use_new_zipfile_serialization=new_format)
    expected, _ = read_weights(whole)
    content = whole.read_bytes()
    for length in range(0, len(content), 41):
        damaged.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"damaged\.pth"):
            read_weights(damaged)
    for place in range(0, len(content), 23):
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            got, _ = read_weights(damaged)
        except ValueError as error:
            assert "damaged.pth" in str(error)
        else:
            if new_format:  # which has checksums: a change that is read at all was in the padding
                assert_same(got, expected)


def test_damaged_and_foreign_files_are_told_apart(tmp_path):
    for name, content, message in damaged_files(tmp_path):
        path = tmp_path / f"{name}.pth"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as raised:
            read_weights(path)
        assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"teacher": {}}, "it is empty"),
        ({"teacher": {"x": torch.ones(1), "epoch": 3}}, r"teacher is not .* hold no tensor: epoch \(int\)"),
        ({"epoch": 3}, r"hold no tensor: epoch \(int\)\. Expected tensors at the top, or under one of teacher"),
        ({"G": {"x": torch.ones(1)}}, r"hold no tensor: G \(dict\).*--section takes any of G"),
        ([torch.ones(1)], "expected a state dict or a checkpoint, got list"),
    ],
)
def test_files_without_a_state_dict_are_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path / "w.pth")


def without(key):
    return lambda arrays: arrays.pop(key)


SPOILT = {
    "missing": (without("norm.bias"), r"1 missing.*\n  - norm\.bias \(32,\)"),
    "unexpected": (
        lambda a: a.update({"fc.weight": np.ones((9, 32))}),
        r"1 unexpected.*\n  \+ fc\.weight \(9, 32\)",
    ),
    "shape": (
        lambda a: a.update(pos_embed=np.ones((1, 3, 32))),
        r"! pos_embed has shape \(1, 3, 32\), the model's is \(1, 9, 32\)",
    ),
    "transposed": (
        lambda a: a.update({"blocks.0.mlp.fc1.weight": a["blocks.0.mlp.fc1.weight"].T}),
        r"! blocks\.0\.mlp\.fc1\.weight has shape \(32, 128\), the model's is \(128, 32\)",
    ),
    "kind": (
        lambda a: a.update(cls_token=np.ones((1, 1, 32), int)),
        r"! cls_token is int64, the model's is float32",
    ),
    "NaN": (
        lambda a: a.update(cls_token=np.full((1, 1, 32), np.nan)),
        r"! cls_token has 32 values that are NaN",
    ),
    "infinity": (lambda a: a.update(cls_token=np.full((1, 1, 32), np.inf)), r"! cls_token has 32 values"),
}


@pytest.mark.parametrize("flaw", SPOILT)
def test_mismatched_weights_are_listed_and_the_model_is_unchanged(flaw):
    spoil, message = SPOILT[flaw]
    model = create_model("vit_test")
    before, arrays = state_dict(model), changed_state_dict("vit_test")
    spoil(arrays)
    with pytest.raises(ValueError, match=message):
        load_state_dict(model, arrays)
    assert_same(state_dict(model), before)


def test_a_constant_that_differs_is_refused_and_none_is_kept_as_state():
    model, key = create_model("swin_test"), "layers.1.blocks.0.attn.relative_position_index"
    arrays = changed_state_dict("swin_test")
    arrays[key] = arrays[key].copy()
    arrays[key][3, 5] += 1
    with pytest.raises(ValueError, match=rf"! {key} is a constant of the architecture, and 1 of its values differ"):
        load_state_dict(model, arrays)
    assert arrays[key].dtype == np.int64
    assert all(isinstance(leaf, nnx.Param) for _, leaf in nnx.to_flat_state(nnx.state(model)))


def test_converting_writes_the_released_form_and_refuses_another_models_weights(tmp_path):
    arrays = changed_state_dict("resnet_test")
    torch.save({"model": as_tensors(arrays)}, tmp_path / "from.pth")
    report = convert("resnet_test", tmp_path / "from.pth", tmp_path / "to.pth")
    assert f"{len(arrays)} matched, 0 missing, 0 unexpected, 0 unfit" in report
    assert_same(read_weights(tmp_path / "to.pth")[0], arrays)
    with pytest.raises(ValueError, match=r"beside vit_test: 0 matched"):
        convert("vit_test", tmp_path / "from.pth", tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"give it such an ending"):
        convert("resnet_test", tmp_path / "from.pth", tmp_path / "other.npz")
    assert not list(tmp_path.glob("*other*"))


@pytest.mark.slow
def test_the_command_exits_with_2_and_one_line_on_bad_input(tmp_path):
    arrays = changed_state_dict("vit_test")
    del arrays["norm.bias"]
    torch.save(as_tensors(arrays), tmp_path / "from.pth")
    command = [sys.executable, "-m", "cion_jax.convert", "--model=vit_test", f"--from={tmp_path}/from.pth"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "- norm.bias (32,)" in done.stderr
    assert "Traceback" not in done.stderr
    arrays["norm.bias"] = np.zeros(32, np.float32)
    torch.save(as_tensors(arrays), tmp_path / "from.pth")
    done = subprocess.run([*command, f"--to={tmp_path}/to.pth"], capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "to.pth").exists()) == (0, True)
    assert f"{len(arrays)} matched" in done.stdout
