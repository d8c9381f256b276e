"""Encoded images in an LMDB, by key: the storage of LUPerson-NL. Requires the package `lmdb`."""

import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.runtime.file_kinds import other_kind
from cion_jax.samples.images import UndecodableImage, decode_image
from cion_jax.samples.stores.packed import Paths

_DATA = "data.mdb"
# LMDB refuses a second environment of a database in one process: share the open one while it is in use.
_open: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def is_lmdb(folder: str | os.PathLike) -> bool:
    """True if `folder`, or the folder `lmdb` in it, contains an LMDB."""
    return _database(folder) is not None


class LmdbImages:
    """Thread-safe random access to the images of an LMDB.

    Raises:
        ValueError: it is damaged or truncated, or the package `lmdb` is not installed.
    """

    def __init__(self, folder: str | os.PathLike):
        database = _database(folder)
        if database is None:
            raise ValueError(f"{folder}: no {_DATA} here or in its folder lmdb; expected an LMDB")
        self._folder, self._environment = Path(folder), _opened(database)

    def __len__(self) -> int:
        return self._environment.stat()["entries"]

    def load(self, path: str) -> np.ndarray:
        """The image with the key `path`, `[height, width, 3]` uint8 RGB."""
        return decode_image(self.read(path), name=f"{path} in {self._folder}")

    def read(self, path: str) -> bytes:
        """The encoded bytes of the image with the key `path`."""
        import lmdb

        try:
            with self._environment.begin() as transaction:
                data = transaction.get(path.encode())
        except lmdb.Error as error:
            raise UndecodableImage(f"{path}: cannot be read from {self._folder} ({error})") from error
        if data is None:
            raise UndecodableImage(f"{path}: no such key in {self._folder}")
        return data

    def missing(self, paths: Paths) -> np.ndarray:
        """Mask of the paths that are not keys, `[paths]` bool."""
        longest = self._environment.max_key_size()
        with self._environment.begin(buffers=True) as transaction:  # do not copy values
            absent = (not 0 < len(key := path.encode()) <= longest or transaction.get(key) is None for path in paths)
            return np.fromiter(absent, bool, len(paths))


def _database(folder: str | os.PathLike) -> Path | None:
    for candidate in (Path(folder), Path(folder) / "lmdb"):
        if (candidate / _DATA).is_file():
            return candidate
    return None


def _opened(database: Path) -> Any:
    try:
        import lmdb
    except ImportError:
        raise ValueError(f"{database} is an LMDB; pip install lmdb, which reads it") from None
    place = os.path.realpath(database)
    with _opening:
        if (environment := _open.get(place)) is not None:
            return environment
        try:
            # Read-only without locks, for read-only file systems; no read-ahead, because access is random.
            environment = lmdb.open(place, readonly=True, lock=False, readahead=False, create=False)
        except lmdb.Error as error:
            remedy = other_kind(database / _DATA) or "copy it again"
            raise ValueError(f"{database} cannot be opened as an LMDB ({error}); {remedy}") from error
        _check_length(database, environment)
        _open[place] = environment
        return environment


def _check_length(database: Path, environment: Any) -> None:
    """Rejects a truncated file: reading a memory map beyond its end would kill the process."""
    expected = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    actual = (database / _DATA).stat().st_size
    if actual < expected:
        environment.close()
        raise ValueError(f"{database / _DATA} is cut off: {actual} bytes, its header says {expected}; copy it again")
