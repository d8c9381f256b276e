"""Packed image stores: encoded image files in a few large ArrayRecord shards instead of millions of files.

A store is a folder with

    shard-00000.array_record ...   the images' bytes, `shard_images` per shard, in the given order
    shard-00000.sha256 ...         32 bytes per image, written once the shard has been read back and verified
    keys.npy                       64-bit hash of every file path, in the same order
    pack.json                      number of images and shard size; present once the store is complete

Packing therefore resumes at the first shard without hashes, and paths take 8 bytes each in memory.
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

from cion_jax.runtime.file_kinds import other_kind
from cion_jax.runtime.files import atomic_path, read_json, write_json
from cion_jax.runtime.progress import Progress, silent
from cion_jax.samples.images import UndecodableImage, decode_image

Paths = Sequence[str] | np.ndarray  # a column of a sample table

_COMPLETE, _STARTED, _KEYS = "pack.json", "started.json", "keys.npy"
# JPEGs do not compress further, and random access needs groups of one record.
_WRITING, _READING = "group_size:1,uncompressed", "readahead_buffer_size:0"
_OPEN_SHARDS = 256  # a common limit is 1,024 open files per process


def is_packed(folder: str | os.PathLike) -> bool:
    """True if `folder` is a complete store."""
    return (Path(folder) / _COMPLETE).exists()


class PackedImages:
    """Thread-safe random access to a complete store."""

    def __init__(self, folder: str | os.PathLike):
        self._folder, about = Path(folder), _about(Path(folder))
        self._shard_images = about["shard_images"]
        keys = _read_keys(self._folder / _KEYS)
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
        """The bytes of the file `path` as packed."""
        place = np.searchsorted(self._sorted, _key(path))
        if place == len(self) or self._sorted[place] != _key(path):
            raise UndecodableImage(f"{path}: not in {self._folder}")
        shard, position = divmod(int(self._order[place]), self._shard_images)
        try:
            return self._reader(shard).read([position])[0]
        except (FileNotFoundError, RuntimeError, ValueError, IndexError) as error:
            file = _shard(self._folder, shard)
            raise UndecodableImage(f"{path}: {file} is damaged ({other_kind(file) or error})") from error

    def missing(self, paths: Paths) -> np.ndarray:
        """Mask of the paths that are not in the store, `[paths]` bool."""
        return ~np.isin(_keys(paths), self._sorted)

    def _reader(self, shard: int) -> Any:
        with self._lock:
            if shard not in self._readers:
                self._readers[shard] = open_shard(self._folder, shard)
                if len(self._readers) > _OPEN_SHARDS:
                    self._readers.popitem(last=False)  # stays open while a thread reads from it
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
    """Packs images into the store `out`; shards finished by an earlier call are kept.

    Every shard is read back and verified by SHA-256 before it counts as finished.

    Args:
        images: folder that `paths` are relative to, or a thread-safe function that reads the bytes of a path.

    Raises:
        ValueError: `out` was started with other paths or another `shard_images`, or a shard fails verification.
        OSError: a file cannot be read or the store cannot be written.
    """
    paths, out = list(dict.fromkeys(paths)), Path(out)
    keys = _keys(paths)
    if len(np.unique(keys)) != len(keys):
        raise ValueError("two file paths have the same 64-bit hash; rename one of them")
    plan = {"images": len(paths), "shard_images": shard_images, "paths": hashlib.sha256(keys.tobytes()).hexdigest()}
    if (previous := _plan(out)) not in (None, plan):
        raise ValueError(
            f"{out} holds {previous['images']} images by {previous['shard_images']}, or other ones than these "
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
    """Verifies a complete store; returns the shards that differ from the packed images."""
    folder, about = Path(folder), _about(Path(folder))
    shards = -(-about["images"] // about["shard_images"])
    damaged = []
    with progress("Verifying", shards, "shards") as advance:
        for number in range(shards):
            expected = np.fromfile(_hashes(folder, number), "V32")
            if not _matches(_shard(folder, number), expected):
                damaged.append(_shard(folder, number))
            advance(1)
    return damaged


def write_shard(out: Path, number: int, contents: Iterable[bytes]) -> None:
    """Writes `contents` to one shard of a store, verifies it and writes its hashes.

    Raises:
        ValueError: the shard fails verification.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    hashes = []
    with atomic_path(_shard(out, number)) as temporary:
        writer = ArrayRecordWriter(str(temporary), _WRITING)
        for data in contents:
            hashes.append(hashlib.sha256(data).digest())
            writer.write(data)
        writer.close()
    if not _matches(_shard(out, number), np.frombuffer(b"".join(hashes), "V32")):
        raise ValueError(f"{_shard(out, number)} does not hold what was written to it; check the disk and pack again")
    with atomic_path(_hashes(out, number)) as temporary:
        temporary.write_bytes(b"".join(hashes))


def open_shard(folder: Path, number: int) -> Any:
    """Reader of one shard: `read([position])[0]` returns the bytes of an image."""
    return _open(_shard(folder, number))


def _open(shard: Path) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader  # optional: not needed for folders

    with shard.open("rb"):
        pass  # raises OSError, e.g. for too many open files, which the reader would report as damage
    return ArrayRecordReader(str(shard), _READING)


def _matches(shard: Path, expected: np.ndarray) -> bool:
    """True if the records of a shard have the `expected` hashes."""
    try:
        reader = _open(shard)
        if reader.num_records() != len(expected):
            return False
        return all(
            hashlib.sha256(reader.read([position])[0]).digest() == digest.tobytes()
            for position, digest in enumerate(expected)
        )
    except (FileNotFoundError, RuntimeError, ValueError, IndexError):  # the reader's own checks failed
        return False


def _about(folder: Path) -> dict[str, int]:
    """The number of images and the shard size of a complete store."""
    file = folder / _COMPLETE
    if (kind := other_kind(file)) is not None:
        raise ValueError(f"{file}: {kind}")
    about = read_json(file)
    if not isinstance(about, dict) or not all(isinstance(about.get(name), int) for name in ("images", "shard_images")):
        raise ValueError(f"{file}: expected the numbers images and shard_images, got {about!r:.80}; pack it again")
    return about


def _read_keys(file: Path) -> np.ndarray:
    try:
        return np.load(file)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file}: {other_kind(file, 'numpy') or error}; copy the store again") from error


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
