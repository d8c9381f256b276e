"""PyTorch's `.pth` files, read without PyTorch and without running what they hold.

Since PyTorch 1.6 a `.pth` is a ZIP archive: `data.pkl`, a pickle in which every storage is a persistent id, and one
raw file per storage under `data/`. Before, and in torchvision's and IBN-Net's downloads to this day, it was one
stream: three small pickles, the pickle of the content, the pickle of the storages' keys, and every storage as its
length and its numbers, little-endian.
"""

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from cion_jax.conversion.files.unpickler import Storage, Tensor, Unpickler

_STREAM_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
# What `zipfile` raises on archives that are truncated or changed, wherever the damage is.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, OverflowError, ValueError, OSError)


def read_pth(path: str | os.PathLike, select: Callable[[Any], Mapping[str, Tensor]]) -> dict[str, np.ndarray]:
    """Reads the tensors that `select` picks from the content of a `.pth`; the others are not read.

    Args:
        path: a file that `torch.save` wrote.
        select: given the unpickled content (dicts, lists, numbers, and `Tensor` descriptions), returns
            `{key: Tensor}`; a `ValueError` of its own passes through.

    Raises:
        ValueError: no such file, another format, truncated, corrupt, or naming any object that a checkpoint of
            tensors and settings does not need.
    """
    try:
        with open(path, "rb") as file:
            reader = _Stream(file, path) if _starts_with(file, _STREAM_START) else _Archive(file, path)
            return {key: _read_tensor(reader, tensor, path) for key, tensor in select(reader.content).items()}
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: a folder, expected a .pth file") from None


class _Archive:
    """The ZIP form."""

    def __init__(self, file: BinaryIO, path: str | os.PathLike):
        self._path = path
        try:
            self._archive = zipfile.ZipFile(file)
        except _DAMAGE as error:
            raise ValueError(f"{path}: {_not_an_archive(path)} ({error})") from None
        self._names = set(self._archive.namelist())
        self._root = self._find_root()
        pickled = io.BytesIO(self._entry(f"{self._root}data.pkl"))
        self.content = Unpickler(pickled, path, self._byte_order()).load()

    def read(self, storage: Storage) -> bytes:
        entry = f"{self._root}data/{storage.key}"
        if entry not in self._names:
            raise ValueError(f"{self._path}: {entry} is missing; copy or download the file again")
        return self._entry(entry)

    def _entry(self, name: str) -> bytes:
        try:
            return self._archive.read(name)
        except _DAMAGE as error:
            raise ValueError(f"{self._path}: {_not_an_archive(self._path)} ({error})") from None

    def _find_root(self) -> str:
        """The folder inside the archive that everything lies in, such as `"archive/"`."""
        for name in self._names:
            if name.count("/") == 1 and name.endswith("/data.pkl"):
                return name.removesuffix("data.pkl")
        raise ValueError(f"{self._path}: a ZIP archive, but none of PyTorch's: it has no data.pkl")

    def _byte_order(self) -> str:
        """`"<"` or `">"`; files older than PyTorch 2.1 do not tell and are little-endian."""
        name = f"{self._root}byteorder"
        return ">" if name in self._names and self._entry(name) == b"big" else "<"


class _Stream:
    """The form of before PyTorch 1.6."""

    def __init__(self, file: BinaryIO, path: str | os.PathLike):
        self._file, self._path = file, path
        for _ in ("magic number", "version", "sizes of types"):
            Unpickler(file, path).load()
        unpickler = Unpickler(file, path)
        self.content = unpickler.load()
        keys = Unpickler(file, path).load()
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
                raise ValueError(f"{self._path}: truncated or damaged; copy or download it again")
            yield key, (offset, size)
            offset += size


def _starts_with(file: BinaryIO, start: bytes) -> bool:
    found = file.read(len(start)) == start
    file.seek(0)
    return found


def _read_tensor(reader: _Archive | _Stream, tensor: Tensor, path: str | os.PathLike) -> np.ndarray:
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    flat = np.frombuffer(reader.read(storage), storage.dtype)
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
            "a pickle, but not one of torch.save; convert it once, where it can be read, with "
            "torch.save(state_dict, new)"
        )
    return "not a .pth file: neither a ZIP archive nor a pickle"
