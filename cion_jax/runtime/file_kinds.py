"""Recognition of files that are not what their name says: failed downloads, git-lfs pointers, archives.

Readers call it when they cannot read a file, so that the message names the actual kind of file and the remedy.
"""

import io
import os
import zipfile
from typing import BinaryIO

_HEAD = 1024  # bytes; everything but zip archives is recognised by its beginning
_UNPACK = "unpack it and give its contents"
_AGAIN = "most likely the answer to a failed download; download the file again"

# Beginning of the file in lower case, without a byte order mark or white space.
_TEXTS = (
    ("<!doctype html", f"an HTML page, {_AGAIN}"),
    ("<html", f"an HTML page, {_AGAIN}"),
    ("<?xml", f"an XML document, {_AGAIN}"),
    ("<error>", f"an XML document, {_AGAIN}"),
    ("version https://git-lfs.github.com/spec/", "a git-lfs pointer; run `git lfs pull` in its repository"),
    ("/annex/objects/", "a git-annex pointer; run `git annex get` in its repository"),
    ("{", "a JSON document"),
    ("[", "a JSON document"),
)
# Offset and bytes there.
_MAGIC = (
    (257, b"ustar", f"a tar archive; {_UNPACK}"),
    (0, b"\x1f\x8b", f"compressed with gzip; {_UNPACK}"),
    (0, b"BZh", f"compressed with bzip2; {_UNPACK}"),
    (0, b"\xfd7zXZ\0", f"compressed with xz; {_UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"compressed with zstd; {_UNPACK}"),
    (0, b"7z\xbc\xaf\x27\x1c", f"a 7-Zip archive; {_UNPACK}"),
    (0, b"Rar!\x1a\x07", f"a RAR archive; {_UNPACK}"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"PAR1", "a Parquet table"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
)


def recognised(file: BinaryIO) -> str | None:
    """Returns the kind of `file` with a remedy where there is one, such as "a tar archive; unpack it and ...".

    The text fits after "not an image but". None: the kind is unknown. The position in `file` is not kept.
    """
    file.seek(0)
    head = file.read(_HEAD)
    if not head:
        return "an empty file; copy or download it again"
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(file)
    for offset, magic, kind in _MAGIC:
        if head.startswith(magic, offset):
            return kind
    text = head.removeprefix(b"\xef\xbb\xbf").decode("latin-1").lstrip().lower()
    return next((kind for start, kind in _TEXTS if text.startswith(start)), None)


def recognised_bytes(data: bytes) -> str | None:
    """As `recognised`, for the contents of a file."""
    return recognised(io.BytesIO(data))


def recognised_at(path: str | os.PathLike) -> str | None:
    """As `recognised`, for the file at `path`; None if it is no file or cannot be read."""
    try:
        with open(path, "rb") as file:
            return recognised(file)
    except OSError:  # the caller reports its own failure to read it
        return None


def _zip_kind(file: BinaryIO) -> str:
    """Tells PyTorch's files from other zip archives by the members that PyTorch writes."""
    try:
        names = zipfile.ZipFile(file).namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return "a zip archive that is cut off or damaged; copy or download it again"
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        return (
            "a TorchScript archive, a program with its weights; in PyTorch, "
            "`torch.save(torch.jit.load(FILE).state_dict(), NEW)` writes the weights alone"
        )
    if any(name.endswith("/data.pkl") for name in names):
        return "a file of PyTorch weights"
    return f"a zip archive; {_UNPACK}"
