"""Packed image stores: the files of a folder as they are, in a few large ArrayRecord shards instead of millions.

A store is a folder with

    shard-00000.array_record ...   the images' bytes, `shard_images` to a shard, in the order they were given
    shard-00000.sha256 ...         32 bytes per image, written when the shard was read back and found equal
    keys.npy                       a 64-bit hash of every file path, in the same order
    pack.json                      how many images and shards; there when the store is complete

so a store that is being made continues at the first shard without hashes, and paths need 8 bytes each in memory.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.runtime.files import atomic_path, read_json, write_json
from cion_jax.runtime.progress import Progress, silent
from cion_jax.samples.images import UndecodableImage, decode_image

Paths = Sequence[str] | np.ndarray  # a column of a sample table

_COMPLETE, _STARTED, _KEYS = "pack.json", "started.json", "keys.npy"
# JPEGs don't compress, and a group of one record is what random access needs.
_WRITING, _READING = "group_size:1,uncompressed", "readahead_buffer_size:0"
_OPEN_SHARDS = 256  # systems commonly allow a process 1,024 open files


def is_packed(folder: str | os.PathLike) -> bool:
    """Whether `folder` is a complete store."""
    return (Path(folder) / _COMPLETE).exists()


class PackedImages:
    """A complete store, read at random and by many threads."""

    def __init__(self, folder: str | os.PathLike):
        self._folder, about = Path(folder), read_json(Path(folder) / _COMPLETE)
        self._shard_images = about["shard_images"]
        keys = np.load(self._folder / _KEYS)
        if len(keys) != about["images"]:
            raise ValueError(f"{folder}: {len(keys)} paths for {about['images']} images; pack it again")
        self._order = np.argsort(keys)
        self._sorted = keys[self._order]
        self._readers: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._order)

    def load(self, path: str) -> np.ndarray:
        """The image that was packed from the file `path`, `[height, width, 3]` uint8 RGB."""
        return decode_image(self.read(path), name=f"{path} in {self._folder}")

    def read(self, path: str) -> bytes:
        """The file `path` as it was packed."""
        place = np.searchsorted(self._sorted, _key(path))
        if place == len(self) or self._sorted[place] != _key(path):
            raise UndecodableImage(f"{path}: not in {self._folder}")
        shard, position = divmod(int(self._order[place]), self._shard_images)
        try:
            return self._reader(shard).read([position])[0]
        except (FileNotFoundError, RuntimeError, ValueError, IndexError) as error:
            raise UndecodableImage(f"{path}: {_shard(self._folder, shard)} is damaged ({error})") from error

    def missing(self, paths: Paths) -> np.ndarray:
        """Mask of the names that are not in the pack."""
        return ~np.isin(_keys(paths), self._sorted)

    def _reader(self, shard: int) -> Any:
        with self._lock:
            if shard not in self._readers:
                self._readers[shard] = open_shard(self._folder, shard)
                if len(self._readers) > _OPEN_SHARDS:
                    self._readers.popitem(last=False)  # a thread that still reads from it holds it open
            self._readers.move_to_end(shard)
            return self._readers[shard]


def pack(
    paths: Paths,
    images: str | os.PathLike | Callable[[str], bytes],
    out: str | os.PathLike,
    *,
    shard_images: int = 8192,
    progress: Progress = silent,
) -> None:
    """Packs images into the store `out`; what an earlier call has finished is kept.

    `images` is the folder that `paths` are relative to, or what reads the bytes of a path, from many threads. Every
    shard is read back from the file and compared by SHA-256 before it counts.

    Raises:
      ValueError: `out` was started with other paths or another `shard_images`, or a shard does not read back.
      OSError: a file cannot be read or the store cannot be written.
    """
    paths, out = list(dict.fromkeys(paths)), Path(out)
    keys = _keys(paths)
    if len(np.unique(keys)) != len(keys):
        raise ValueError("two file paths have the same 64-bit hash; rename one of them")
    plan = {"images": len(paths), "shard_images": shard_images, "paths": hashlib.sha256(keys.tobytes()).hexdigest()}
    if (before := _plan(out)) not in (None, plan):
        raise ValueError(
            f"{out} holds {before['images']} images by {before['shard_images']}, or other ones than these "
            f"{len(paths)} by {shard_images}; give another --out, or remove it"
        )
    if is_packed(out):
        return
    write_json(out / _STARTED, plan)
    read = images if callable(images) else lambda path: (Path(images) / path).read_bytes()
    with progress("Packing", len(paths), "images") as advance, ThreadPoolExecutor() as pool:
        for number, first in enumerate(range(0, len(paths), shard_images)):
            names = paths[first : first + shard_images]
            if not _hashes(out, number).exists():
                write_shard(out, number, pool.map(read, names))
            advance(len(names))
    with atomic_path(out / _KEYS) as temporary, temporary.open("wb") as file:
        np.save(file, keys)
    os.replace(out / _STARTED, out / _COMPLETE)


def damaged_shards(folder: str | os.PathLike, *, progress: Progress = silent) -> list[Path]:
    """Reads a complete store whole; the shards that differ from what was packed."""
    folder, about = Path(folder), read_json(Path(folder) / _COMPLETE)
    shards = -(-about["images"] // about["shard_images"])
    damaged = []
    with progress("Verifying", shards, "shards") as advance:
        for number in range(shards):
            expected = np.fromfile(_hashes(folder, number), "V32")
            if not _holds(_shard(folder, number), expected):
                damaged.append(_shard(folder, number))
            advance(1)
    return damaged


def write_shard(out: Path, number: int, contents: Iterable[bytes]) -> None:
    """Writes one shard of a store as they come; then reads it back and writes its hashes.

    Raises:
      ValueError: it does not read back.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    hashes = []
    with atomic_path(_shard(out, number)) as temporary:
        writer = ArrayRecordWriter(str(temporary), _WRITING)
        for data in contents:
            hashes.append(hashlib.sha256(data).digest())
            writer.write(data)
        writer.close()
    if not _holds(_shard(out, number), np.frombuffer(b"".join(hashes), "V32")):
        raise ValueError(f"{_shard(out, number)} does not hold what was written to it; check the disk and pack again")
    with atomic_path(_hashes(out, number)) as temporary:
        temporary.write_bytes(b"".join(hashes))


def open_shard(folder: Path, number: int) -> Any:
    """The reader of one shard: `read([position])[0]` gives the bytes of an image."""
    return _open(_shard(folder, number))


def _open(shard: Path) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader  # folders need no such package

    with shard.open("rb"):
        pass  # OSError if it cannot be opened, such as for too many open files: the reader's error is that of damage
    return ArrayRecordReader(str(shard), _READING)


def _holds(shard: Path, expected: np.ndarray) -> bool:
    """Whether the records of a shard have these hashes."""
    try:
        reader = _open(shard)
        if reader.num_records() != len(expected):
            return False
        return all(
            hashlib.sha256(reader.read([position])[0]).digest() == digest.tobytes()
            for position, digest in enumerate(expected)
        )
    except (FileNotFoundError, RuntimeError, ValueError, IndexError):  # the reader's own checks found it damaged
        return False


def _plan(out: Path) -> dict[str, Any] | None:
    for name in (_COMPLETE, _STARTED):
        if (out / name).exists():
            return read_json(out / name)
    return None


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.array_record"


def _hashes(folder: Path, number: int) -> Path:
    return _shard(folder, number).with_suffix(".sha256")


def _key(path: str) -> np.uint64:
    return np.frombuffer(hashlib.blake2b(path.encode(), digest_size=8).digest(), np.uint64)[0]


def _keys(paths: Paths) -> np.ndarray:
    return np.array([_key(path) for path in paths], np.uint64)
