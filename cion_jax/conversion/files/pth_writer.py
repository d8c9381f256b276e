"""PyTorch's `.pth` archives, written without PyTorch.

The pickle is put together opcode by opcode, because Python's pickler only names what it can import.
"""

import os
import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cion_jax.conversion.files.unpickler import STORAGES
from cion_jax.runtime.files import atomic_path

_STORAGE_OF = {np.dtype(dtype): name for name, dtype in STORAGES.items()}


def write_pth(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Writes `{key: tensor}`, or such dicts by section, as `torch.save` would, atomically.

    `torch.load(path, weights_only=True)` gives the same numbers back, bit by bit. The same content always
    makes the same file.

    Raises:
        ValueError: an array of a dtype that PyTorch has no storage for.
    """
    arrays: list[np.ndarray] = []
    pickled = pickle.PROTO + b"\x02" + _nested(content, arrays) + pickle.STOP
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (("data.pkl", pickled), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)
        for index, array in enumerate(arrays):
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            archive.writestr(zipfile.ZipInfo(f"archive/data/{index}"), little.tobytes())


def _nested(content: Mapping[str, Any], arrays: list[np.ndarray]) -> bytes:
    """A dict of arrays and such dicts; its arrays are appended to `arrays`, whose places are the storage numbers."""
    parts = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            parts[key] = _nested(value, arrays)
        else:
            parts[key] = _tensor(len(arrays), key, value)
            arrays.append(value)
    return _dict(parts)


def _tensor(index: int, key: str, array: np.ndarray) -> bytes:
    """A call of PyTorch's `_rebuild_tensor_v2` on storage number `index`."""
    if array.dtype not in _STORAGE_OF:
        known = ", ".join(str(dtype) for dtype in _STORAGE_OF)
        raise ValueError(f"{key} is {array.dtype}; PyTorch stores {known}")
    strides = [int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim)]
    storage_type = _name("torch", _STORAGE_OF[array.dtype])
    storage = _tuple((_text("storage"), storage_type, _text(str(index)), _text("cpu"), _int(array.size)))
    hooks = _name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = (
        storage + pickle.BINPERSID,
        _int(0),
        _tuple(map(_int, array.shape)),
        _tuple(map(_int, strides)),
        pickle.NEWFALSE,  # requires_grad
        hooks,
    )
    return _name("torch._utils", "_rebuild_tensor_v2") + _tuple(arguments) + pickle.REDUCE


def _dict(items: Mapping[str, bytes]) -> bytes:
    pairs = b"".join(_text(key) + value for key, value in items.items())
    return pickle.EMPTY_DICT + pickle.MARK + pairs + pickle.SETITEMS


def _tuple(items: Iterable[bytes]) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _text(text: str) -> bytes:
    encoded = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _int(number: int) -> bytes:
    if number < 2**31:
        return pickle.BININT + struct.pack("<i", number)
    encoded = pickle.encode_long(number)
    return pickle.LONG1 + bytes([len(encoded)]) + encoded


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()
