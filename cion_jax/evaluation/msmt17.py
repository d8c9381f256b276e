"""Reading MSMT17 (Wei et al., CVPR 2018) in the layouts in which it goes around.

Lists:          `list_query.txt` and `list_gallery.txt` with lines `0000/0000_000_01_0303morning_0008_0.jpg 0`, the path
                below an image folder and the identity; the camera is the third number of the file name. The folder
                is `test/` (V1, and the copies that CION's fine-tuning reads) or `mask_test_v2/` (V2, faces masked:
                scores on it do not compare with V1).
Market-1501's:  `query/`, `bounding_box_test/` with names like `0000_c12_0033.jpg`.

Identities are numbered anew from 0 in training and in test: equal numbers are different people.
"""

import os
import re
from pathlib import Path

import numpy as np

from cion_jax.evaluation.benchmark import (
    GALLERY_FOLDER,
    QUERY_FOLDER,
    Benchmark,
    LabelledImages,
    read_named_folder,
)

_QUERY_LIST, _GALLERY_LIST = "list_query.txt", "list_gallery.txt"
_TEST_FOLDERS = ("test", "mask_test_v2")
_MASKED = "mask_test_v2"
_ROOTS = (".", "MSMT17_V1", "MSMT17_V2", "MSMT17")
_LINE = re.compile(r"(?P<path>(?:\S+/)?[^\s/_]+_[^\s/_]+_(?P<camera>\d+)_[^\s/]+)\s+(?P<identity>\d+)\s*")
_EXAMPLE = "0000/0000_000_01_0303morning_0008_0.jpg 0"


def read_msmt17(root: str | os.PathLike) -> Benchmark:
    """Reads queries and gallery in `root`, or in `MSMT17_V1`, `MSMT17_V2` or `MSMT17` below it.

    Raises ValueError where there is no copy, more than one, a list with a line that is none, or a list with an
    image that is not on disk.
    """
    folder = _find(root)
    if not _has_lists(folder):
        query, gallery = read_named_folder(folder / QUERY_FOLDER), read_named_folder(folder / GALLERY_FOLDER)
        return Benchmark(query, gallery, f"MSMT17 in Market-1501 layout in {folder}")
    images = _image_folder(folder)
    version = "V2, faces masked" if images.name == _MASKED else "as V1"
    query, gallery = _read_list(folder / _QUERY_LIST, images), _read_list(folder / _GALLERY_LIST, images)
    return Benchmark(query, gallery, f"MSMT17 by its lists in {folder}, images in {images.name}/ ({version})")


def _has_lists(folder: Path) -> bool:
    return (folder / _QUERY_LIST).is_file() or (folder / _GALLERY_LIST).is_file()


def _find(root: str | os.PathLike) -> Path:
    candidates = [Path(root) / name for name in _ROOTS]
    found = [folder for folder in candidates if _has_lists(folder) or (folder / GALLERY_FOLDER).is_dir()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{len(found)} copies of MSMT17: {', '.join(map(str, found))}; scores on them need not compare, give the "
            "folder of one"
        )
    raise ValueError(
        f"no MSMT17 in any of {', '.join(map(str, candidates))}: expected {_QUERY_LIST} and {_GALLERY_LIST} beside "
        f"{' or '.join(f'{name}/' for name in _TEST_FOLDERS)}, or {QUERY_FOLDER}/ beside {GALLERY_FOLDER}/"
    )


def _image_folder(folder: Path) -> Path:
    found = [folder / name for name in _TEST_FOLDERS if (folder / name).is_dir()]
    if len(found) != 1:
        raise ValueError(
            f"{folder}: expected one of the image folders {', '.join(_TEST_FOLDERS)} beside the lists, "
            f"found {len(found)}"
        )
    return found[0]


def _read_list(path: Path, images: Path) -> LabelledImages:
    """The images of a list, in its order, each seen to be on disk."""
    if not path.is_file():
        raise ValueError(f"{path}: no such list; it comes in the archive of MSMT17, beside the image folders")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    entries: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if not match:
            raise ValueError(
                f"{path}, line {number}: {line!r} is not a path and an identity, with the camera as third number of "
                f"the file name; expected a line like {_EXAMPLE!r}"
            )
        if match["path"] in entries:
            raise ValueError(f"{path}, line {number}: {match['path']} is listed a second time")
        entries[match["path"]] = match["identity"], match["camera"]
    missing = [name for name in entries if not (images / name).is_file()]
    if missing:
        raise ValueError(
            f"{path}: {len(missing)} of its {len(entries)} images are not in {images}; the first is {missing[0]}"
        )
    if not entries:
        raise ValueError(f"{path}: the list is empty; expected lines like {_EXAMPLE!r}")
    ids, cameras = np.array(list(entries.values()), np.int64).T
    return LabelledImages([str(images / name) for name in entries], ids, cameras)
