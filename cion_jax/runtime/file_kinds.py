"""Recognition of files that are not what their name promises: failed downloads, git-lfs pointers, archives."""

import os
import re
from typing import NamedTuple

_START = 512  # bytes; a tar archive has its mark at byte 257


class _Kind(NamedTuple):
    start: bytes  # regular expression of the first bytes
    description: str
    remedy: str


_UNPACK = "unpack it and give the file in it"
_KINDS = {
    "empty": _Kind(rb"\Z", "is empty (0 bytes)", "copy or download it again"),
    "html": _Kind(
        rb"(?i)\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body)\b",
        "is a web page (HTML), as a failed download leaves it",
        "download it again, logged in if the site asks for it, and compare the size",
    ),
    "xml": _Kind(rb"\s*<(\?xml|Error>)", "is XML: an error message of a server, or annotations", "export it as text"),
    "git-lfs": _Kind(
        rb"version https://git-lfs", "is a git-lfs pointer, not the file itself", "run `git lfs pull` in its repository"
    ),
    "git-annex": _Kind(
        rb"(\.\./)*(\.git)?/annex/objects/", "is a git-annex pointer, not the file itself", "run `git annex get` on it"
    ),
    "utf-16": _Kind(rb"\xff\xfe|\xfe\xff", "is UTF-16 text", "save it as UTF-8"),
    "gzip": _Kind(rb"\x1f\x8b", "is compressed with gzip", _UNPACK),
    "bzip2": _Kind(rb"BZh[1-9]1AY", "is compressed with bzip2", _UNPACK),
    "xz": _Kind(rb"\xfd7zXZ\0", "is compressed with xz", _UNPACK),
    "zstd": _Kind(rb"\x28\xb5\x2f\xfd", "is compressed with zstd", _UNPACK),
    "zip": _Kind(rb"PK\x03\x04", "is a zip archive, an Excel workbook or a PyTorch file", _UNPACK),
    "7z": _Kind(rb"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive", _UNPACK),
    "rar": _Kind(rb"Rar!\x1a", "is a RAR archive", _UNPACK),
    "tar": _Kind(rb".{257}ustar", "is a tar archive", _UNPACK),
    "parquet": _Kind(rb"PAR1", "is a Parquet file", "give it a name that ends in .parquet"),
    "arrow": _Kind(rb"ARROW1|FEA1", "is an Arrow or Feather file", "save it as Parquet"),
    "numpy": _Kind(rb"\x93NUMPY", "is a NumPy array (.npy)", "give the file that it belongs to"),
    "hdf5": _Kind(rb"\x89HDF\r\n", "is an HDF5 file", "export what it holds"),
    "sqlite": _Kind(rb"SQLite format 3\0", "is an SQLite database", "export the table in it"),
    "pickle": _Kind(rb"\x80[\x02-\x05]", "is a Python pickle", "export what it holds"),
    "pdf": _Kind(rb"%PDF-", "is a PDF document", "give the file that it belongs to"),
    "image": _Kind(rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|RIFF....WEBP", "is an image", "give the file that it belongs to"),
}
_PATTERNS = {name: re.compile(kind.start, re.DOTALL) for name, kind in _KINDS.items()}


def kind_of(path: str | os.PathLike) -> str | None:
    """The kind of a file by its first bytes, a key such as "html" or "zip"; None for text and other files."""
    with open(path, "rb") as file:
        return _kind_of_bytes(file.read(_START))


def other_kind(path: str | os.PathLike, *own: str) -> str | None:
    """The actual kind of a file that cannot be read, with a remedy: "the file is a tar archive; unpack it ...".

    None if it is of none of the known kinds, or of the caller's `own` (keys of `kind_of`), or is no file at all: the
    caller then reports its own failure to read it.
    """
    try:
        with open(path, "rb") as file:
            return other_kind_of_bytes(file.read(_START), *own)
    except OSError:
        return None


def other_kind_of_bytes(data: bytes, *own: str) -> str | None:
    """As `other_kind`, for the contents of a file."""
    name = _kind_of_bytes(data)
    if name is None or name in own:
        return None
    return f"the file {_KINDS[name].description}; {_KINDS[name].remedy}"


def refuse_other_kinds(path: str | os.PathLike, *own: str) -> None:
    """Raises `ValueError` for a file of a known kind that is none of the caller's `own` (keys of `kind_of`).

    The message says what the file is and what to do: "labels.csv: the file is a git-lfs pointer, ...".
    """
    with open(path, "rb") as file:
        other = other_kind_of_bytes(file.read(_START), *own)
    if other is not None:
        raise ValueError(f"{path}: {other}")


def _kind_of_bytes(data: bytes) -> str | None:
    start = data[:_START].removeprefix(b"\xef\xbb\xbf")
    return next((name for name, pattern in _PATTERNS.items() if pattern.match(start)), None)
