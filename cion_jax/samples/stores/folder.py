"""Listing of a plain image folder as a sample table."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from cion_jax.runtime.progress import note
from cion_jax.samples.stores.lmdb_images import is_lmdb
from cion_jax.samples.stores.packed import is_packed

# Extensions of image files, compared without case. Some formats are not supported by every build of Pillow: reporting
# such a file as undecodable is better than silently ignoring it.
EXTENSIONS = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
_EXAMPLES = 5  # files left out that a note names


def read_folder(root: Path) -> pa.Table:
    """`file_path` of every image in `root` or below it: relative, with forward slashes, sorted by code point.

    Hidden files and folders (".name") are ignored, and other files are left out, counted and named on the console.
    Links are followed; a folder with several links is read once.

    Raises:
        ValueError: no images, a file name that is not UTF-8, or `root` is a packed store or an LMDB.
        OSError: a folder cannot be listed.
    """
    if is_packed(root):
        raise ValueError(f"{root}: a packed store, which does not keep file names; give the sample table it is for")
    if is_lmdb(root):
        raise ValueError(f"{root}: an LMDB, not a folder of images; python -m cion_jax.samples.read makes its table")
    files = list(_files(root))
    images = images_among(files, root)
    if not images:
        others = f"{len(files)} other files, such as {min(files)!r}" if files else "no files at all"
        raise ValueError(f"{root}: no image in this folder or below it ({', '.join(EXTENSIONS)}), but {others}")
    try:
        return pa.table({"file_path": sorted(images, key=str.encode)})
    except UnicodeEncodeError as error:
        raise ValueError(f"{root}: the file name {error.object!r} is not UTF-8; rename the file") from None


def images_among(names: Iterable[str], folder: Path) -> list[str]:
    """The names of image files, by their extension. Other files of `folder` are counted and named on the console."""
    images: list[str] = []
    others: list[str] = []
    for name in names:
        (images if os.path.splitext(name)[1].lower() in EXTENSIONS else others).append(name)
    if images and others:
        examples = ", ".join(sorted(others)[:_EXAMPLES]) + (", ..." if len(others) > _EXAMPLES else "")
        note(f"{folder}: left out, as their names are not those of images: {len(others):,} files ({examples})")
    return images


def _files(root: Path) -> Iterator[str]:
    visited = {os.path.realpath(root)}
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_raise):
        inside = Path(folder).relative_to(root)
        yield from ((inside / name).as_posix() for name in files if not name.startswith("."))
        folders[:] = [name for name in sorted(folders) if not name.startswith(".") and _is_new(folder, name, visited)]


def _is_new(folder: str, name: str, visited: set[str]) -> bool:
    """True if a subfolder has not been visited yet: links may form cycles."""
    real = os.path.realpath(os.path.join(folder, name))
    is_new = real not in visited
    visited.add(real)
    return is_new


def _raise(error: OSError) -> None:
    raise error
