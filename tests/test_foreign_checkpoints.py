"""Weight files as other code saves them: wrappers, sections, averages, objects beside the weights, attacks."""

import argparse
import collections
import datetime
import enum
import functools
import io
import os
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from cion_jax.conversion import load_weights, read_weights, state_dict
from cion_jax.conversion.files.unpickler import PthUnpickler
from cion_jax.conversion.imagenet import initialise
from cion_jax.conversion.keys import split_network
from cion_jax.convert import convert
from cion_jax.models import create_model, list_models
from tests.weights import as_tensors, assert_same, changed_state_dict

NAME = "resnet_test"


@pytest.fixture(scope="module")
def arrays():
    return changed_state_dict(NAME)


@pytest.fixture(params=[True, False], ids=["archive", "stream"])
def save(request, tmp_path):
    def save(content, name="w.pth"):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=request.param)
        return tmp_path / name

    return save


def loaded(path, **options):
    model = create_model(NAME)
    where = load_weights(model, path, **options)
    return state_dict(model), where


# Numbers


@pytest.mark.parametrize("view", [torch._neg_view, lambda x: (x * 1j).conj().imag], ids=["negated", "of a conjugate"])
def test_views_with_a_pending_sign_have_the_values_that_pytorch_sees(save, view):
    lazy = view(torch.arange(6.0).reshape(2, 3))
    assert lazy.is_neg()
    path = save({"x": lazy, "slice": lazy[1:, ::2], "plain": torch.ones(2)})
    expected = {key: value.resolve_neg().numpy() for key, value in torch.load(path, weights_only=True).items()}
    assert expected["x"].min() == -5
    assert_same(read_weights(path)[0], expected)


def test_complex_and_conjugated_tensors(save):
    x = torch.tensor([1 + 2j, -3j])
    tensors = {"x": x, "conjugated": x.clone().conj(), "both": -x.clone().conj()}
    expected = {key: value.resolve_conj().resolve_neg().numpy() for key, value in tensors.items()}
    assert_same(read_weights(save(tensors))[0], expected)


def test_number_formats_without_storage_types(save):
    tensors = {
        "u2": torch.tensor([1, 65535]).to(torch.uint16),
        "f1": torch.tensor([0.5, -448.0]).to(torch.float8_e4m3fn),
    }
    got, _ = read_weights(save(tensors))
    assert got["u2"].tolist() == [1, 65535] and got["f1"].astype(np.float32).tolist() == [0.5, -448.0]


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_float64_beyond_float32_is_refused(save, arrays, value):
    tensors = {key: x.double() if x.is_floating_point() else x for key, x in as_tensors(arrays).items()}
    assert_same(loaded(save(tensors))[0], arrays)
    tensors["conv1.weight"][0, 0, 0, 0] = value
    path = save(tensors)
    message = r"! conv1\.weight has 1 values beyond the range of float32"
    for read in (loaded, lambda path: convert(NAME, path, None), lambda path: initialise(create_model(NAME), path)):
        with pytest.raises(ValueError, match=message):
            read(path)


def test_counters_beyond_the_models_integers_are_refused(save, arrays):
    counters = {key: x + 2**40 for key, x in as_tensors(arrays).items() if key.endswith("tracked")}
    with pytest.raises(ValueError, match=r"tracked has 1 values beyond the range of int32"):
        loaded(save(as_tensors(arrays) | counters))


def test_missing_and_floating_point_counters(save, arrays):
    tensors = as_tensors(arrays)
    counters = [key for key in tensors if key.endswith("num_batches_tracked")]
    path = save({key: x.double() if key in counters[1:] else x for key, x in tensors.items() if key != counters[0]})
    got, where = loaded(path)
    assert_same(got, arrays | {counters[0]: np.asarray(0)})
    floats = len(counters) - 1
    assert where.endswith(f", 1 missing num_batches_tracked set to 0, {floats} num_batches_tracked of floating point")
    with pytest.raises(ValueError, match="num_batches_tracked is float32, the model's is int64"):
        loaded(save(tensors | {counters[0]: torch.tensor(0.5)}))


# Keys


def prefixed(arrays, *prefixes):
    """The keys get the prefixes in turn."""
    return {prefixes[i % len(prefixes)] + key: x for i, (key, x) in enumerate(as_tensors(arrays).items())}


@pytest.mark.parametrize(
    "prefixes",
    [
        *(["_orig_mod."], ["module._orig_mod."], ["_orig_mod.module."], ["module.module."], ["backbone.module."]),
        *(
            ["model."],
            ["base."],
            ["encoder."],
            ["net."],
            ["model.base._orig_mod."],
            ["student.module.backbone.encoder."],
        ),
        *(["module.", ""], ["module.backbone.", "backbone."], ["model._orig_mod.", "model."]),
    ],
    ids=" ".join,
)
def test_prefixes_are_stripped_and_reported(save, arrays, prefixes):
    got, where = loaded(save({"state_dict": prefixed(arrays, *prefixes)}))
    assert_same(got, arrays)
    for prefix in filter(None, prefixes):
        assert repr(prefix) in where
    assert ("some keys" in where) == ("" in prefixes)


def test_compiled_parts_inside_a_network(save, arrays):
    tensors = {key.replace("layer1.0.", "layer1._orig_mod.0.module."): x for key, x in as_tensors(arrays).items()}
    got, where = loaded(save(tensors))
    assert_same(got, arrays)
    assert where == "a bare state dict, names of wrappers removed inside keys"


def test_the_head_beside_a_backbone_under_a_shared_prefix_is_left_out(save, arrays):
    tensors = prefixed(arrays, "model.backbone.") | {"model.head.mlp.0.weight": torch.ones(2)}
    assert_same(loaded(save(tensors))[0], arrays)


def test_prefixes_that_not_all_keys_share_are_kept_and_listed(save, arrays):
    path = save(prefixed(arrays, "base.") | {"classifier.weight": torch.ones(2, 3)})
    with pytest.raises(ValueError, match=r"0 matched(.|\n)*\+ base\.conv1\.weight"):
        loaded(path)


def test_a_key_that_is_there_under_two_prefixes_is_refused(save, arrays):
    path = save(prefixed(arrays, "module.") | {"conv1.weight": torch.ones(2)})
    with pytest.raises(ValueError, match=r"w\.pth: conv1\.weight is in it several times, under different prefixes"):
        loaded(path)


def test_the_average_of_pytorchs_averaged_model(save):
    average = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(2, 3))
    got, where = read_weights(save({"ema": average.state_dict()}))
    assert sorted(got) == ["bias", "weight"]
    assert where == "section 'ema', keys under 'module.', without 'n_averaged'"


@pytest.mark.parametrize("name", list_models("*_test"))
def test_no_models_own_names_are_stripped(name):
    keys = dict.fromkeys(state_dict(create_model(name)))
    assert split_network(keys) == (keys, {}, "")


# Sections


@pytest.mark.parametrize(
    "path", ["ema", "net", "params_ema", "state_dict_ema", "model.state_dict", "state_dict.model", "model.net.params"]
)
def test_sections_and_sections_in_sections(save, arrays, path):
    content = as_tensors(arrays)
    for name in reversed(path.split(".")):
        content = {"epoch": 3, name: content}
    got, where = loaded(save(content))
    assert_same(got, arrays)
    assert where == f"section {path!r}"


@pytest.mark.parametrize(("raw", "average"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_an_average_beside_raw_weights_is_reported_and_can_be_chosen(save, arrays, raw, average, capsys, tmp_path):
    averaged = {key: x + np.asarray(1, x.dtype) for key, x in arrays.items()}
    path = save({average: as_tensors(averaged, "module."), raw: as_tensors(arrays)})
    got, where = loaded(path)
    assert_same(got, arrays)
    assert where == f"section {raw!r}"
    note = capsys.readouterr().err
    assert f"the weights are those of section {raw!r}; it also has {average!r}. --section chooses one" in note
    got, where = loaded(path, section=average)
    assert_same(got, averaged)
    assert where == f"section {average!r}, keys under 'module.'" and not capsys.readouterr().err
    convert(NAME, path, tmp_path / "to.pth", section=average)
    assert_same(loaded(tmp_path / "to.pth")[0], averaged)
    with pytest.raises(ValueError, match=rf"--section=emma: .*--section takes any of {average}, {raw}"):
        loaded(path, section="emma")


# What pickles hold beside the weights


class Settings(dict):
    """As the settings of yacs and ml_collections: a dict with attributes."""

    def __setstate__(self, state):
        self.__dict__.update(state)

    def __reduce__(self):
        return type(self), (), {"frozen": True}, None, iter(self.items())


class Colour(enum.Enum):
    RED = 1


class Tracker:
    """An object with tensors in it, as optimizers and averages are."""

    def __init__(self):
        self.average = {"x": torch.ones(3)}


BESIDE = {
    "path": pathlib.PurePosixPath("runs/1"),
    "set": {1, "a"},
    "frozenset": frozenset([2]),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "counter": collections.Counter("abca"),
    "datetime": datetime.datetime(2024, 2, 3, tzinfo=datetime.UTC),
    "array": np.arange(3.0),
    "array of text": np.array(["a", "b"]),
    "array of objects": np.array([{}, None], object),
    "NumPy scalars": [np.float32(2), np.str_("a"), np.datetime64("2024-01-01")],
    "random state": np.random.default_rng(0),
    "device": torch.device("cpu"),
    "dtype": torch.float32,
    "settings": Settings(model=Settings(name="resnet"), lr=0.1),
    "namespace": argparse.Namespace(a=Colour.RED),
    "partial": functools.partial(int, base=2),
    "bound method": "x".upper,
    "types": [int, Tracker, torch.nn.ReLU],
    "tracker": Tracker(),
    "module": torch.nn.Linear(2, 2),
    "optimizer": torch.optim.Adam(torch.nn.Linear(2, 2).parameters()),
    "slice": slice(1, 2),
    "complex": 1j,
}


@pytest.mark.parametrize("name", BESIDE)
def test_weights_beside_other_objects_are_read(save, name, arrays):
    path = save({"model": as_tensors(arrays), "extra": {"nested": [BESIDE[name]]}})
    got, where = read_weights(path)
    assert_same(got, arrays)
    assert where == "section 'model'"


def test_weights_in_other_containers_and_classes(save, arrays):
    tensors = as_tensors(arrays)
    parameter = torch.nn.Parameter(tensors["conv1.weight"])
    parameter.tag, tensors["bn1.weight"].tag = "a", "b"
    for content in (collections.defaultdict(list, tensors), dict(arrays), tensors | {"conv1.weight": parameter}):
        assert_same(read_weights(save({"model": content}))[0], arrays)


@pytest.mark.parametrize("section", ["", "model"])
def test_whole_modules_are_refused_with_the_remedy(save, section):
    module = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"object of torch\.nn\.modules\.linear\.Linear.*save its state_dict\(\)"):
        read_weights(save({section: module} if section else module))


# Attacks


class Call:
    """Unpickled by a careless reader, this calls a function."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state) if state else (function, arguments)

    def __reduce__(self):
        return self.reduced


def touch(path, *_):
    pathlib.Path(path).touch()
    return torch.ones(2)


class Writes:
    """Its methods write files, whichever of them a reader calls."""

    def __init__(self, path):
        self.path = path

    def __setstate__(self, state):
        touch(state["path"])

    def __setitem__(self, key, value):
        touch(key)

    def extend(self, values):
        touch(values[0])

    def __reduce__(self):
        return Writes, (self.path,), {"path": self.path}, iter([self.path]), iter([(self.path, 1)])


@pytest.mark.parametrize("function", [os.system, eval, exec, open, __import__, torch.load, np.load, os.popen])
def test_functions_that_run_code_are_refused_wherever_they_are(save, function, arrays, tmp_path):
    ran = str(tmp_path / "ran")
    attack = Call(function, ran)
    for content in (
        {"model": as_tensors(arrays), "x": [attack]},
        {"model": as_tensors(arrays) | {"a": attack}},
        attack,
    ):
        with pytest.raises(
            ValueError, match=r"w\.pth: refused, its pickle asks for .* could run code; nothing was run"
        ):
            read_weights(save(content))
    assert not pathlib.Path(ran).exists()


def test_unknown_functions_and_methods_are_never_called(save, arrays, tmp_path):
    ran = tmp_path / "ran"
    for attack in (Call(touch, str(ran)), Writes(str(ran)), Call(getattr, Call(touch, str(ran)), "shape")):
        path = save({"model": as_tensors(arrays), "x": attack})
        assert_same(read_weights(path)[0], arrays)
        with pytest.raises(ValueError, match="hold no tensor: x"):
            read_weights(save({"model": {"x": attack}}))
        assert not ran.exists()
        torch.load(path, weights_only=False)
        assert ran.exists()  # the attack works on a careless reader
        ran.unlink()


@pytest.mark.parametrize("arguments", [(torch.ones(2),), ([{"a": torch.ones(2)}],)])
def test_tensors_made_by_unknown_functions_are_refused(save, arguments, tmp_path):
    attack = Call(touch, str(tmp_path / "ran"), *arguments)
    for content in ({"model": {"x": attack}}, {"model": {"x": torch.ones(1)}, "beside": attack}):
        with pytest.raises(ValueError, match=r"refused, its pickle makes a tensor by .*touch, which is unknown"):
            read_weights(save(content))
    with pytest.raises(ValueError, match=r"makes a tensor by torch\._utils\._rebuild_sparse_tensor"):
        read_weights(save({"x": torch.eye(2).to_sparse()}))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", ["torch._utils\n_rebuild_tensor_v2", "torch\nFloatStorage", "torch\nTensor", "torch\nSize", "numpy\ndtype"]
)
@pytest.mark.parametrize("state", ["(dV__defaults__\nI1\ns", "(N(dV__defaults__\nI1\nst"], ids=["dict", "slots"])
def test_a_pickle_cannot_change_the_functions_that_it_uses(name, state, tmp_path):
    """BUILD sets attributes of any object: of a function, its defaults for the next file."""
    with pytest.raises(ValueError, match="not a pickle, or a damaged one"):
        PthUnpickler(tmp_path / "w.pth").load(io.BytesIO(f"c{name}\n{state}b.".encode()))


def test_a_memo_larger_than_the_pickle_is_refused_before_memory_is_reserved(tmp_path):
    data = b"\x80\x02}r\xff\xff\xff\x7f."
    with pytest.raises(ValueError, match="memo index 2147483647"):
        PthUnpickler(tmp_path / "w.pth").load(io.BytesIO(data))


def test_an_expanded_tensor_larger_than_memory_is_a_misfit(save, arrays):
    tensors = as_tensors(arrays) | {"conv1.weight": torch.zeros(()).expand(2**20, 2**20, 2**15)}
    with pytest.raises(ValueError, match=r"! conv1\.weight has shape \(1048576, 1048576, 32768\)"):
        loaded(save(tensors))


# Other formats and names


@pytest.mark.parametrize("name", ["w.SAFETENSORS", "w.Safetensors", "w.bin", "w.pth", "w"])
def test_safetensors_are_recognised_under_any_name(name, arrays, tmp_path):
    safetensors.torch.save_file(as_tensors(arrays), tmp_path / name)
    assert_same(loaded(tmp_path / name)[0], arrays)


def test_a_header_of_safetensors_that_starts_like_a_pickle(tmp_path):
    """A header of 640 bytes starts with 80 02, as pickles do."""
    for length in range(560, 600):
        safetensors.torch.save_file({"x" * length: torch.ones(2)}, tmp_path / "w")
        if (tmp_path / "w").read_bytes()[:2] == b"\x80\x02":
            break
    else:
        raise AssertionError("no such header")
    assert list(read_weights(tmp_path / "w")[0]) == ["x" * length]


def test_pth_files_under_another_name_and_formats_to_write_in_upper_case(save, arrays, tmp_path):
    assert_same(loaded(save(as_tensors(arrays), "w.safetensors"))[0], arrays)
    convert(NAME, tmp_path / "w.safetensors", tmp_path / "TO.SAFETENSORS")
    assert sorted(safetensors.torch.load_file(tmp_path / "TO.SAFETENSORS")) == sorted(arrays)
    convert(NAME, tmp_path / "w.safetensors", tmp_path / "TO.PTH")
    assert list(torch.load(tmp_path / "TO.PTH", weights_only=True)) == ["teacher"]


def torchscript(folder):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 3), torch.ones(1, 2)), folder / "ts")
    return (folder / "ts").read_bytes()


def packed(folder, kind):
    torch.save({"x": torch.ones(2)}, folder / "inner.pth")
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.write(folder / "inner.pth", "inner.pth")
    else:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(folder / "inner.pth", "inner.pth")
    return buffer.getvalue()


OTHERS = {
    "html": (lambda folder: b"<!DOCTYPE html><html>Sign in</html>", "is a web page .*; download it again"),
    "lfs": (
        lambda folder: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7\n",
        "git-lfs pointer.*git lfs pull",
    ),
    "torchscript": (torchscript, r"a TorchScript archive.*torch\.jit\.load"),
    "tar": (lambda folder: packed(folder, "tar"), "is a tar archive; unpack it"),
    "zip": (
        lambda folder: packed(folder, "zip"),
        r"ZIP archive, but not one of torch\.save.*It holds inner\.pth.*unpack",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("kind", OTHERS)
def test_files_that_are_something_else_are_named_with_the_remedy(kind, name, tmp_path):
    make, message = OTHERS[kind]
    (tmp_path / name).write_bytes(make(tmp_path))
    with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
        read_weights(tmp_path / name)
