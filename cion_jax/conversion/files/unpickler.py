"""The pickles inside PyTorch's files, read without PyTorch and without running what they name.

Tensors become descriptions. Objects that are no tensors (paths, settings, optimizers, whole modules) become
placeholders without content: what stands beside the weights does not matter. A pickle is refused if it names a function
that runs code or programs, which no checkpoint needs, or passes a tensor to an unknown function, whose result it
takes for a tensor.
"""

import collections
import operator
import os
import pickle
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from cion_jax.runtime.unpickling import NUMPY, Function, Name, RefusedPickle, Unpickler, check_memo

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
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
}
# Number formats without a storage type of their own: their tensors are views of untyped storages.
_UNTYPED = {
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}
# Modules and functions that run code or programs. Naming one is a sign of an attack; safety does not rest on this list,
# because no function outside `_ALLOWED` is ever called.
_MODULES = {"os", "posix", "nt", "subprocess", "sys", "shutil", "socket", "importlib", "imp", "runpy", "pty", "ctypes"}
_FUNCTIONS = {"eval", "exec", "execfile", "compile", "open", "__import__", "system", "popen", "Popen", "load", "loads"}
_REMEDY = "If you trust the file, load it in PyTorch and save its state dict alone"


class Dtype(NamedTuple):
    """A number format; unlike `numpy.dtype`, nothing that a pickle can alter."""

    dtype: np.dtype


class Storage(NamedTuple):
    """A flat run of numbers in the file, under the name that the file gives it."""

    key: str
    dtype: np.dtype


class Tensor(NamedTuple):
    """A tensor as the pickle describes it; its numbers are read only when it is selected.

    `conjugated` and `negated` are views whose sign PyTorch has not applied to the stored numbers yet.
    """

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugated: bool = False
    negated: bool = False


class Placeholder:
    """Stands for an object or function that is neither called nor kept; every name gets its own subclass."""

    name = ""

    def __new__(cls, *_: Any, **__: Any) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **keywords: Any):  # of a function call; objects are made by __new__ alone
        if any(isinstance(part, Tensor | Storage) for part in _parts([arguments, keywords])):
            raise RefusedPickle(f"its pickle makes a tensor by {self.name}, which is unknown here. {_REMEDY}")

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def _ignore(self, value: Any) -> None:
        pass

    append = extend = add = _ignore


class PthUnpickler:
    """Unpickles the parts of one weight file; `storages` are those that they named, by key."""

    def __init__(self, path: str | os.PathLike):
        self._path = path
        self.storages: dict[str, Storage] = {}

    def load(self, file: BinaryIO) -> Any:
        """The next pickle of `file`.

        Raises:
            ValueError: not a pickle, a damaged one, or one that is refused.
        """
        check_memo(file, self._path)
        return Unpickler(file, self._path, _ALLOWED, _placeholder, self._persistent).load()

    def _persistent(self, pid: Any) -> Any:
        if pid[0] == "module":  # in old files, the class of a whole module and its source code
            return pid[1]
        _, kind, key, _, _, *view = pid
        if not isinstance(kind, Dtype) or (view and view[0] is not None):
            raise pickle.UnpicklingError(f"a storage of type {name_of(kind)}, or one that is a view of another")
        storage = Storage(str(key), kind.dtype)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise pickle.UnpicklingError(f"storage {key} has two number formats")
        return storage


def name_of(value: Any) -> str:
    """The type of an unpickled value, in the file's terms."""
    if isinstance(value, type) and issubclass(value, Placeholder):
        return value.name
    return value.name if isinstance(value, Placeholder) else type(value).__name__


def _placeholder(module: str, name: str) -> type[Placeholder]:
    full = f"{module}.{name}"
    first, *_, last = full.split(".")
    if first in _MODULES or last in _FUNCTIONS:
        raise RefusedPickle(
            f"its pickle asks for {full}, which could run code; nothing was run. No checkpoint needs that: do not load "
            "this file in PyTorch either, and get the weights from a source that you trust"
        )
    return type("Placeholder", (Placeholder,), {"name": full})


def _parts(values: list) -> Iterator[Any]:
    """Everything in nested containers, each container once."""
    seen: set[int] = set()
    while values:
        value = values.pop()
        yield value
        if isinstance(value, dict | list | tuple | set | frozenset) and id(value) not in seen:
            seen.add(id(value))
            values.extend(value.values() if isinstance(value, dict) else value)


def _rebuild_tensor(
    storage: Storage, offset: int, shape: tuple, strides: tuple, grad: Any = None, hooks: Any = None, views: Any = None
) -> Tensor:
    return _tensor(storage, storage.dtype, offset, shape, strides, views)


def _rebuild_tensor_v3(
    storage: Storage, offset: int, shape: tuple, strides: tuple, grad: Any, hooks: Any, kind: Dtype, views: Any = None
) -> Tensor:
    return _tensor(storage, kind.dtype, offset, shape, strides, views)


def _tensor(storage: Storage, dtype: np.dtype, offset: int, shape: tuple, strides: tuple, views: Any) -> Tensor:
    views = views or {}
    if not isinstance(storage, Storage) or len(shape) != len(strides) or not views.keys() <= {"conj", "neg"}:
        raise pickle.UnpicklingError("a tensor without a storage, with a stride too many, or an unknown kind of view")
    numbers = operator.index(offset), tuple(map(operator.index, shape)), tuple(map(operator.index, strides))
    return Tensor(storage, dtype, *numbers, bool(views.get("conj")), bool(views.get("neg")))


def _rebuild_parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


def _rebuild_from_type(function: Function, kind: Any, arguments: tuple, state: Any) -> Tensor:
    """A tensor with Python attributes; `kind` is its class."""
    del state
    if function not in (_TENSOR, _TENSOR_V3, _PARAMETER) or kind not in _TENSOR_CLASSES:
        raise RefusedPickle(f"its pickle makes a tensor of class {name_of(kind)}, which is unknown here. {_REMEDY}")
    return function(*arguments)


_TENSOR, _TENSOR_V3, _PARAMETER = Function(_rebuild_tensor), Function(_rebuild_tensor_v3), Function(_rebuild_parameter)
_TENSOR_CLASSES = (("torch", "Tensor"), ("torch.nn.parameter", "Parameter"), ("torch.nn.parameter", "Buffer"))

_ALLOWED: dict[Name, Any] = {
    **NUMPY,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): Function(lambda *_: {}),
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _TENSOR,
    ("torch._utils", "_rebuild_tensor_v2"): _TENSOR,
    ("torch._utils", "_rebuild_tensor_v3"): _TENSOR_V3,
    ("torch._utils", "_rebuild_parameter"): _PARAMETER,
    ("torch._utils", "_rebuild_parameter_with_state"): _PARAMETER,
    ("torch._tensor", "_rebuild_from_type_v2"): Function(_rebuild_from_type),
    **{name: name for name in _TENSOR_CLASSES},
    **{("torch", name): Dtype(np.dtype(dtype)) for name, dtype in (STORAGES | _UNTYPED).items()},
    ("torch.storage", "UntypedStorage"): Dtype(np.dtype(np.uint8)),
}
