"""The pickles inside PyTorch's files, read without PyTorch and without running what they hold.

Unpickling goes by a list of the few names that a checkpoint needs, each standing for code of this module; any other
name is refused before it is looked up, so no file can run code.
"""

import collections
import dataclasses
import operator
import os
import pickle
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from cion_jax.runtime.unpickling import NUMPY_SCALARS

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
class Storage:
    """A flat run of numbers in the file, by the name that the file gives it."""

    key: str
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor as the pickle describes it; its numbers are read only when it is selected."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Refused(ValueError):
    """The pickle asks for something that is not on the list."""


class _Namespace:
    """Stands for `argparse.Namespace`: the settings that released checkpoints carry along, as a dict."""

    def __setstate__(self, state: dict) -> None:
        self.settings = dict(state)


def _rebuild_tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *_) -> Tensor:
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise pickle.UnpicklingError("a tensor without a storage, or with a stride too many")
    index = operator.index
    return Tensor(storage, index(offset), tuple(map(index, shape)), tuple(map(index, strides)))


def _rebuild_parameter(tensor: Tensor, *_) -> Tensor:
    return tensor


# Everything a pickle may name, and what stands for it here.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("argparse", "Namespace"): _Namespace,
    **NUMPY_SCALARS,  # learning rates, mostly
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): np.dtype(dtype) for name, dtype in STORAGES.items()},
}


class Unpickler(pickle.Unpickler):
    """Unpickles `file`, a part of the weight file at `path` whose numbers are in this byte order.

    `storages` are those that the pickle named, by key.
    """

    def __init__(self, file: BinaryIO, path: str | os.PathLike, byte_order: str = "<"):
        super().__init__(file)
        self._path, self._byte_order = path, byte_order
        self.storages: dict[str, Storage] = {}

    def load(self) -> Any:
        """The next pickle.

        Raises:
            ValueError: no pickle, or one of anything but tensors, containers, numbers and settings.
        """
        try:
            return super().load()
        except Refused:
            raise
        except Exception as error:  # bytes that are no pickle, or another one, can raise anything
            raise ValueError(
                f"{self._path}: its description of the tensors is corrupt ({type(error).__name__}: {error}); "
                "copy or download it again"
            ) from error

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise Refused(
            f"{self._path}: refused, its pickle asks for {module}.{name}, which could run code; only tensors, "
            "containers, numbers and argparse.Namespace are read. If you trust the file, load it in PyTorch "
            "and save its state dict alone"
        )

    def persistent_load(self, pid: Any) -> Storage:
        _, dtype, key, _, _, *view = pid
        if view and view[0] is not None:
            raise pickle.UnpicklingError("a storage that is a view of another")
        storage = Storage(str(key), dtype.newbyteorder(self._byte_order))
        return self.storages.setdefault(storage.key, storage)
