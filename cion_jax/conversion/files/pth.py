"""PyTorch's `.pth` files, read without PyTorch and without running what they hold.

Since PyTorch 1.6 a `.pth` is a ZIP archive: `data.pkl`, a pickle in which every storage is a persistent id, and one
raw file per storage under `data/`. Before, and in torchvision's and IBN-Net's downloads to this day, it was one
stream: three small pickles, the pickle of the content, the pickle of the storages' keys, and every storage as its
length and its numbers, little-endian.
"""

import io
import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Literal

import numpy as np

from cion_jax.conversion.files.unpickler import PthUnpickler, Storage, Tensor
from cion_jax.runtime.unpickling import NumpyArray

Selection = Mapping[str, Tensor | NumpyArray]

_ZIP_START = b"PK\x03\x04"
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_COPY_AGAIN = "copy or download it again"
# What `zipfile` raises on archives that are truncated or changed, wherever the damage is.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, OverflowError, ValueError),
    *(OSError, KeyError, MemoryError),
)


def read_pth(path: str | os.PathLike, select: Callable[[Any], Selection]) -> dict[str, np.ndarray]:
    """Reads the tensors that `select` picks from the content of a `.pth`; the others are not read.

    Args:
        path: a file that `torch.save` wrote.
        select: given the unpickled content (dicts, lists, numbers, `Tensor` descriptions, NumPy arrays and
            placeholders), returns `{key: Tensor or array}`; a `ValueError` of its own passes through.

    Raises:
        ValueError: another format, truncated, corrupt, or a pickle that is refused.
    """
    with open(path, "rb") as file:
        is_archive = file.read(len(_ZIP_START)) == _ZIP_START
        file.seek(0)
        reader = _Archive(file, path) if is_archive else _Stream(file, path)
        return {key: _read(reader, tensor, f"{path}: {key}") for key, tensor in select(reader.content).items()}


class _Archive:
    """The ZIP form."""

    def __init__(self, file: BinaryIO, path: str | os.PathLike):
        self._path = path
        try:
            self._archive = zipfile.ZipFile(file)
        except _DAMAGE as error:
            raise self._damaged(error) from None
        self._names = set(self._archive.namelist())
        self._root = self._find_root()
        self.content = PthUnpickler(path).load(io.BytesIO(self._entry(f"{self._root}data.pkl")))
        # Files older than PyTorch 2.1 do not record the byte order and are little-endian.
        order = f"{self._root}byteorder"
        self.byte_order: Literal["<", ">"] = ">" if order in self._names and self._entry(order) == b"big" else "<"

    def read(self, storage: Storage) -> bytes:
        entry = f"{self._root}data/{storage.key}"
        if entry not in self._names:
            raise ValueError(f"{self._path}: {entry} is missing; copy or download the file again")
        return self._entry(entry)

    def _entry(self, name: str) -> bytes:
        try:
            return self._archive.read(name)
        except _DAMAGE as error:
            raise self._damaged(error) from None

    def _find_root(self) -> str:
        """The folder inside the archive that everything lies in, such as `"archive/"`."""
        for name in sorted(self._names):
            if name.count("/") == 1 and name.endswith("/data.pkl"):
                root = name.removesuffix("data.pkl")
                if f"{root}constants.pkl" in self._names:
                    raise ValueError(
                        f"{self._path}: a TorchScript archive, which holds a program; load it with torch.jit.load and "
                        "save its state_dict() with torch.save"
                    )
                return root
        some = ", ".join(sorted(self._names)[:3]) or "nothing"
        raise ValueError(
            f"{self._path}: a ZIP archive, but not one of torch.save: it has no data.pkl. It holds {some}; if the "
            "weights are among that, unpack it and give that file"
        )

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(f"{self._path}: a truncated or damaged .pth archive; {_COPY_AGAIN} ({error})")


class _Stream:
    """The form of before PyTorch 1.6."""

    byte_order: Literal["<", ">"] = "<"

    def __init__(self, file: BinaryIO, path: str | os.PathLike):
        self._file, self._path = file, path
        unpickler = PthUnpickler(path)
        if unpickler.load(file) != _MAGIC_NUMBER:
            raise ValueError(
                f"{path}: a pickle, but not one of torch.save; convert it once, where it can be read, with "
                "torch.save(state_dict, new)"
            )
        for _ in ("version", "sizes of types"):
            unpickler.load(file)
        self.content = unpickler.load(file)
        keys = unpickler.load(file)
        if not isinstance(keys, list):
            raise ValueError(f"{path}: truncated or damaged; {_COPY_AGAIN}")
        self._places = dict(self._find(map(str, keys), unpickler.storages))

    def read(self, storage: Storage) -> bytes:
        if storage.key not in self._places:
            raise ValueError(f"{self._path}: storage {storage.key} is missing; copy or download the file again")
        offset, size = self._places[storage.key]
        self._file.seek(offset)
        return self._file.read(size)

    def _find(self, keys: Iterable[str], storages: Mapping[str, Storage]) -> Iterator[tuple[str, tuple[int, int]]]:
        """`(key, (offset, bytes))` of every storage, in the order in which they follow the pickles."""
        offset, end = self._file.tell(), os.fstat(self._file.fileno()).st_size
        for key in keys:
            self._file.seek(offset)
            header = self._file.read(8)
            count = struct.unpack("<q", header)[0] if len(header) == 8 and key in storages else -1
            size = count * storages[key].dtype.itemsize if count >= 0 else end
            offset += 8
            if offset + size > end:
                raise ValueError(f"{self._path}: truncated or damaged; {_COPY_AGAIN}")
            yield key, (offset, size)
            offset += size


def _read(reader: _Archive | _Stream, tensor: Tensor | NumpyArray, name: str) -> np.ndarray:
    """The numbers of a tensor in this machine's byte order; `name` is for messages."""
    if isinstance(tensor, NumpyArray):
        values = np.asarray(tensor)
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    content = reader.read(tensor.storage)
    try:
        return _view(_flat(content, tensor, reader.byte_order), tensor)
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise ValueError(f"{name}: a tensor of shape {tensor.shape} cannot be read: {error}; {_COPY_AGAIN}") from error


def _flat(content: bytes, tensor: Tensor, byte_order: Literal["<", ">"]) -> np.ndarray:
    """All numbers of the tensor's storage, with the sign that the tensor gives them."""
    flat = np.frombuffer(content, tensor.dtype.newbyteorder(byte_order)).astype(tensor.dtype, copy=False)
    if tensor.conjugated:
        flat = np.conjugate(flat)
    return np.negative(flat) if tensor.negated else flat


def _view(flat: np.ndarray, tensor: Tensor) -> np.ndarray:
    shape, strides = tensor.shape, tensor.strides
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if min((tensor.offset, *shape, *strides)) < 0 or (0 not in shape and last >= len(flat)):
        raise ValueError(f"it reaches outside its storage of {len(flat)} values")
    if 0 in shape:
        return np.zeros(shape, flat.dtype)
    steps = [stride * flat.itemsize for stride in strides]
    view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], shape, steps, writeable=False)
    # An expanded tensor repeats its numbers, maybe more often than fits in memory: whether it fits a model comes first.
    return view if math.prod(shape) > len(flat) else np.array(view)
