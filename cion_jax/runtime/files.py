"""Atomic file writes.

Everything this package writes goes to a temporary name in the same folder, is flushed to disk and then renamed, so
a file under its final name is always complete, whatever interrupted the write (Ctrl-C, ``kill -9``, a full disk).
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LONGEST_STEM = 128  # bytes; file systems take names of 143 to 255 bytes, and temporary names are 14 longer


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path to write to; renames it to `path` on success, removes it on failure.

    Works for files and folders; an existing folder at `path` is replaced too.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = path.with_name(f".{_stem(path)}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        if temporary.is_dir():
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
        else:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def remove_leftovers(path: Path) -> None:
    """Removes temporary files that killed writers of `path` left behind; assumes one writer at a time."""
    for leftover in path.parent.glob(f".{glob.escape(_stem(path))}.{'?' * 8}.tmp"):
        _remove(leftover)


def _stem(path: Path) -> str:
    """The file name, or a hash of it if it is so long that a temporary name made of it would be too long."""
    name = os.fsencode(path.name)
    return path.name if len(name) <= _LONGEST_STEM else hashlib.sha256(name).hexdigest()[:32]


def is_too_long(path: Path) -> bool:
    """True if the file system has no room for the name of the file; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)  # the length of a name is checked only in a folder that exists
    try:
        path.exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return True
    return False


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` atomically as indented JSON; raises `ValueError` for NaN, which JSON cannot represent."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def read_json(path: str | os.PathLike, **options: Any) -> Any:
    """Reads a JSON file, passing `options` to `json.loads`.

    Raises:
        ValueError: The file is missing or is not valid JSON; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(), **options)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file ({error}); it may be truncated, write it again") from error


def sha256_of_file(path: str | os.PathLike) -> str:
    """Returns the SHA-256 digest of a file's contents, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
