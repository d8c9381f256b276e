"""Folder and file-name conventions of Market-1501 and MSMT17, shared by training tables and benchmarks.

A root is the data set's folder or a data root that holds it under a name that ReID code bases use. Labels come from
file names `<identity>_c<camera>...` (Market-1501) or from lists of lines `<path> <identity>` (MSMT17), where the camera
is the third number of the file name.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cion_jax.samples.stores.folder import EXTENSIONS, images_among
from cion_jax.samples.table import EXAMPLES

MARKET1501_ROOTS = (".", "market1501", "Market-1501-v15.09.15")
MSMT17_ROOTS = (".", "MSMT17_V1", "MSMT17_V2", "MSMT17", "msmt17")
JUNK = -1  # the identity of boxes that are neither a match nor a distractor

# At most 18 digits: every such number fits int64.
_NAME = re.compile(r"(-?[0-9]{1,18})_c([0-9]{1,18})(?![0-9])")
_LINE = re.compile(
    r"(?P<path>(?:\S+/)?[^\s/_]+_[^\s/_]+_(?P<camera>[0-9]{1,18})_[^\s/]+)\s+(?P<identity>[0-9]{1,18})\s*"
)
_LINE_EXAMPLE = "0000/0000_000_01_0303morning_0008_0.jpg 0"


class NamedImages(NamedTuple):
    """Image names relative to one folder, with `[images]` int64 identities and cameras."""

    names: list[str]
    ids: np.ndarray
    cameras: np.ndarray


def dataset_folders(root: Path, names: tuple[str, ...], is_layout: Callable[[Path], bool]) -> list[Path]:
    """The folders `root/name` for which `is_layout` holds, in the order of `names`, each real folder once.

    `MSMT17` and `msmt17` are the same folder on file systems that ignore case.
    """
    folders = {}
    for folder in (root / name for name in names):
        if is_layout(folder):
            folders.setdefault(folder.resolve(), folder)
    return list(folders.values())


def image_folder(folder: Path, names: tuple[str, ...]) -> Path:
    """The image folder that MSMT17's lists refer to: the only one of `names` in `folder`."""
    present = [folder / name for name in names if (folder / name).is_dir()]
    if len(present) != 1:
        raise ValueError(
            f"{folder}: expected one of the image folders {', '.join(names)} beside the lists, found {len(present)}"
        )
    return present[0]


def read_names(folder: Path) -> tuple[NamedImages, int]:
    """Images of a folder with labels from their names, sorted by name; and the number of junk images left out.

    Every extension of `EXTENSIONS` counts as an image. Hidden files are ignored; others are named on the console.

    Raises:
        ValueError: no such folder, a name that does not begin with `<identity>_c<camera>`, or no images but junk.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    files = (file.name for file in folder.iterdir() if not file.name.startswith("."))  # such as the "._x.jpg" of macOS
    names = sorted(images_among(files, folder))
    matches = [_NAME.match(name) for name in names]
    malformed = [name for name, match in zip(names, matches) if match is None]
    if malformed:
        examples = ", ".join(map(repr, malformed[:EXAMPLES])) + (", ..." if len(malformed) > EXAMPLES else "")
        raise ValueError(
            f"{folder}: {len(malformed)} of {len(names)} file names do not begin with <identity>_c<camera>: {examples}"
        )
    labels = np.array([match.groups() for match in matches if match], np.int64).reshape(-1, 2)
    kept = np.flatnonzero(labels[:, 0] != JUNK)
    if not kept.size:
        raise ValueError(f"{folder}: no images of a person ({', '.join(EXTENSIONS)}; identity {JUNK} is junk)")
    images = NamedImages([names[row] for row in kept], labels[kept, 0], labels[kept, 1])
    return images, len(names) - len(kept)


def read_list(file: Path) -> NamedImages:
    """Images of an MSMT17 list in its order, names relative to its image folder. Blank lines are ignored.

    Raises:
        ValueError: no such list, an empty one, a malformed line or a path that is listed twice.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such list; it comes in the archive of MSMT17, beside the image folders")
    entries: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if not match:
            raise ValueError(
                f"{file}, line {number}: {line!r} is not a path and an identity, with the camera as third number of "
                f"the file name; expected a line like {_LINE_EXAMPLE!r}"
            )
        if match["path"] in entries:
            raise ValueError(f"{file}, line {number}: {match['path']} is listed a second time")
        entries[match["path"]] = match["identity"], match["camera"]
    if not entries:
        raise ValueError(f"{file}: the list is empty; expected lines like {_LINE_EXAMPLE!r}")
    ids, cameras = np.array(list(entries.values()), np.int64).T
    return NamedImages(list(entries), ids, cameras)
