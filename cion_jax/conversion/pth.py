"""PyTorch's `.pth` archives, read without PyTorch and without running what they hold.

Since PyTorch 1.6 a `.pth` is a ZIP archive: `data.pkl`, a pickle in which every storage is a persistent id,
and one raw file per storage under `data/`. The reader unpickles with a list of the few names a checkpoint
needs, each standing for code of this module; any other name is refused before it is looked up, so no file can
run code.
"""

import collections
import dataclasses
import io
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A flat run of numbers in the archive."""

    entry: str
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor as the pickle describes it; its numbers are read only when it is selected."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pth(path: str | os.PathLike, select: Callable[[Any], Mapping[str, Tensor]]) -> dict[str, np.ndarray]:
    """Reads the tensors that `select` picks from the content of a `.pth`; the others are not read.

    Args:
        path: a file that `torch.save` wrote, of PyTorch 1.6 or later.
        select: given the unpickled content (dicts, lists, numbers, and `Tensor` descriptions), returns
            `{key: Tensor}`; a `ValueError` of its own passes through.

    Raises:
        ValueError: no such file, another or an older format, truncated, corrupt, or naming any object that a
            checkpoint of tensors and settings does not need.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = _unpickle(archive, path)
            return {key: _read_tensor(archive, tensor, path) for key, tensor in select(content).items()}
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: a folder, expected a .pth file") from None
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: {_not_an_archive(path)} ({error})") from None


class _Namespace:
    """Stands for `argparse.Namespace`: the settings that released checkpoints carry along, as a dict."""

    def __setstate__(self, state: dict) -> None:
        self.settings = dict(state)


class _NumpyType:
    """Stands for `numpy.dtype` in pickled scalars (learning rates, mostly); plain numbers only."""

    def __init__(self, code: str, *_):
        if code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
            raise pickle.UnpicklingError(f"a NumPy scalar of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in "<>":
            self.dtype = self.dtype.newbyteorder(state[1])


def _numpy_scalar(kind: _NumpyType, content: bytes) -> Any:
    return np.frombuffer(content, kind.dtype, count=1)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_) -> Tensor:
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Tensor, *_) -> Tensor:
    return tensor


# Everything a pickle may name, and what stands for it here.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("argparse", "Namespace"): _Namespace,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _NumpyType,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): np.dtype(dtype) for name, dtype in STORAGES.items()},
}


class _Refused(ValueError):
    """The pickle asks for something that is not in `_ALLOWED`."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, pickled: bytes, root: str, byte_order: str, path: str | os.PathLike):
        super().__init__(io.BytesIO(pickled))
        self.root, self.byte_order, self.path = root, byte_order, path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise _Refused(
            f"{self.path}: refused, its pickle asks for {module}.{name}, which could run code; only tensors, "
            "containers, numbers and argparse.Namespace are read. If you trust the file, load it in PyTorch "
            "and save its state dict alone"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, *_ = pid
        return _Storage(f"{self.root}data/{key}", dtype.newbyteorder(self.byte_order))


def _unpickle(archive: zipfile.ZipFile, path: str | os.PathLike) -> Any:
    root = _root(archive, path)
    pickled = archive.read(f"{root}data.pkl")
    try:
        return _Unpickler(pickled, root, _byte_order(archive, root), path).load()
    except _Refused:
        raise
    except Exception as error:  # bytes that are no pickle, or another one, can raise anything
        raise ValueError(
            f"{path}: its description of the tensors is corrupt ({type(error).__name__}: {error}); "
            "copy or download it again"
        ) from error


def _root(archive: zipfile.ZipFile, path: str | os.PathLike) -> str:
    """The folder inside the archive that everything lies in, such as `"archive/"`."""
    for name in archive.namelist():
        if name.count("/") == 1 and name.endswith("/data.pkl"):
            return name.removesuffix("data.pkl")
    raise ValueError(f"{path}: a ZIP archive, but none of PyTorch's: it has no data.pkl")


def _byte_order(archive: zipfile.ZipFile, root: str) -> str:
    """`"<"` or `">"`; files older than PyTorch 2.1 do not tell and are little-endian."""
    name = f"{root}byteorder"
    return ">" if name in archive.namelist() and archive.read(name) == b"big" else "<"


def _read_tensor(archive: zipfile.ZipFile, tensor: Tensor, path: str | os.PathLike) -> np.ndarray:
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    if storage.entry not in archive.namelist():
        raise ValueError(f"{path}: {storage.entry} is missing; copy or download the file again")
    flat = np.frombuffer(archive.read(storage.entry), storage.dtype)
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if min((tensor.offset, *shape, *strides)) < 0 or (0 not in shape and last >= len(flat)):
        raise ValueError(
            f"{path}: a tensor of shape {shape} reaches outside its storage of {len(flat)} values; "
            "copy or download the file again"
        )
    steps = [stride * flat.itemsize for stride in strides]
    view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], shape, steps)
    return np.array(view, dtype=storage.dtype.newbyteorder("="))


def _not_an_archive(path: str | os.PathLike) -> str:
    with open(path, "rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04":
        return "a truncated or damaged .pth archive; copy or download it again"
    if start[:1] == b"\x80":
        return (
            "a pickle in PyTorch's format from before version 1.6, which is not read; convert it once with "
            "torch.save(torch.load(old, weights_only=True), new)"
        )
    return "not a .pth file: neither a ZIP archive nor a pickle"
