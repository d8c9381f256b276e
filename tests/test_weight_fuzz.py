"""Mutated weight files: every one is read as PyTorch or safetensors reads it, or refused with an error of our own."""

import io
import zipfile

import hypothesis.strategies as st
import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given

from cion_jax.conversion import read_weights
from tests.fuzzing import SHORT, repeat


def content():
    """A checkpoint with every feature of the format that is read, and objects beside the weights."""
    tensors = {
        "layer.weight": torch.arange(12.0).reshape(3, 4),
        "layer.transposed": torch.arange(6.0).reshape(2, 3).T,
        "layer.half": torch.ones(3).half(),
        "layer.negated": torch._neg_view(torch.ones(2)),
        "layer.expanded": torch.ones(1).expand(3),
        "layer.running_var": torch.ones(2),
        "parameter": torch.nn.Parameter(torch.zeros(1)),
    }
    return {"model": tensors, "epoch": 3, "range": range(3)}


def pth(new_format):
    buffer = io.BytesIO()
    saved = content()
    if new_format:
        saved["model"]["u16"] = torch.ones(2).to(torch.uint16)  # PyTorch writes it to streams but cannot read it
    torch.save(saved, buffer, _use_new_zipfile_serialization=new_format)
    return buffer.getvalue()


def rezipped(archive, name, data):
    """The archive with another entry of this name, and correct checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, data if entry == name else old.read(entry))
    return buffer.getvalue()


@st.composite
def mutations(draw, data):
    """Some bytes replaced, deleted, repeated or inserted, or the end cut off."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.sampled_from([1, 1, 1, 2, 4, 8, 30]))
        new = draw(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from([b"\xff" * 4, b"\xff" * 8, b"\0" * 8, b"r", b"b", b"R", b"\x81", b"0", b"."]),
                st.just(bytes(data[place : place + length]) * 2),
            )
        )
        data[place : place + length] = new
    return bytes(data[: draw(st.sampled_from([len(data)] * 9 + [len(data) // 2]))])


def read(path):
    """The tensors, or None where the file is refused by an error of our own, which names it."""
    try:
        return read_weights(path, section="model")[0] if path.suffix == ".pth" else read_weights(path)[0]
    except ValueError as error:
        assert type(error).__module__ in ("builtins", "cion_jax.runtime.unpickling"), error
        assert path.name in str(error), error
        return None


def read_by_pytorch(path):
    try:
        with torch.serialization.safe_globals([range]):
            tensors = torch.load(path, weights_only=True)["model"]
        return {key: x.detach().resolve_neg() for key, x in tensors.items() if isinstance(x, torch.Tensor)}
    except Exception:  # what torch.load raises on damaged files is its own affair
        return None


def check_same(got, others):
    """Where PyTorch reads a tensor of this name as well, it is the same one, bit by bit."""
    for key, value in got.items():
        if key in others and key.endswith(("weight", "transposed", "half", "negated", "expanded")):
            expected = others[key].contiguous().numpy()
            assert (value.dtype, value.shape) == (expected.dtype, expected.shape), key
            assert np.array(value).tobytes() == expected.tobytes(), key


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["archive", "pickle of an archive", "stream"])
def test_mutated_pth_files(kind, tmp_path, fuzz_seconds):
    whole = pth(kind != "stream")
    with zipfile.ZipFile(io.BytesIO(pth(True))) as archive:
        pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        description = archive.read(pickled)
    path = tmp_path / "w.pth"
    path.write_bytes(whole)
    expected = read(path)
    check_same(expected, read_by_pytorch(path))
    assert expected.keys() >= content()["model"].keys()

    @SHORT
    @given(mutations(description if kind == "pickle of an archive" else whole))
    def check(mutated):
        path.write_bytes(rezipped(whole, pickled, mutated) if kind == "pickle of an archive" else mutated)
        got = read(path)
        if got is None:
            return
        if kind == "archive":  # has checksums: what is read is what was written
            for key in got.keys() & expected.keys():
                np.testing.assert_array_equal(got[key], expected[key])
        elif (others := read_by_pytorch(path)) is not None:
            check_same(got, others)

    repeat(check, fuzz_seconds)


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_mutated_safetensors(name, tmp_path, fuzz_seconds):
    arrays = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": np.arange(3), "c": np.zeros((0, 2), np.float16)}
    whole, path = safetensors.numpy.save(arrays, {"model": "x"}), tmp_path / name

    @SHORT
    @given(mutations(whole))
    def check(mutated):
        path.write_bytes(mutated)
        if (got := read(path)) is None:
            return
        others = safetensors.numpy.load(mutated)  # reads whatever we read
        for key, value in others.items():
            assert (got[key].dtype, got[key].shape) == (value.dtype, value.shape)
            assert got[key].tobytes() == value.tobytes()

    repeat(check, fuzz_seconds)
