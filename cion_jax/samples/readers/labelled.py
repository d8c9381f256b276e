"""Training images of ReID benchmarks, as sample tables with `identity`, `person` and `camera`.

`cion_jax.evaluation` reads their queries and galleries, by the same conventions (`cion_jax.samples.layouts`).
"""

from pathlib import Path

import pyarrow as pa

from cion_jax.samples.layouts import (
    JUNK,
    MARKET1501_ROOTS,
    MSMT17_ROOTS,
    NamedImages,
    dataset_folders,
    image_folder,
    read_list,
    read_names,
)
from cion_jax.samples.readers.reading import Reading
from cion_jax.samples.stores.sources import check_images
from cion_jax.samples.table import SampleTable

SPLITS = ("train", "train+val")
_TRAIN = "bounding_box_train"
_TRAIN_LIST, _VAL_LIST = "list_train.txt", "list_val.txt"
_LIST_IMAGES = ("train", "mask_train_v2")  # version 1, and version 2 with masked faces


def read_market1501(root: Path) -> Reading:
    """Market-1501: `bounding_box_train/<identity>_c<camera>...` in `root` or in a folder of a known name below it.

    Junk images (identity -1) are left out.
    """
    return _read_names(root, _only(root, MARKET1501_ROOTS, (_TRAIN,)) / _TRAIN)


def read_msmt17(root: Path, *, split: str) -> Reading:
    """MSMT17 in `root` or in a folder of a known name below it, in either of two layouts.

    - `list_train.txt` and `list_val.txt` with lines `path identity`, beside `train/` (version 1) or `mask_train_v2/`
    - `bounding_box_train/` with Market-1501's file names, which holds the images of both lists

    Args:
        split: "train", as the benchmark defines it and torchreid and FastReID train, or "train+val", as in the paper
          and most later work; results on the two are not comparable.

    Raises:
        ValueError: no copy or several, a split that the layout does not separate, or a malformed line or name.
    """
    if split not in SPLITS:
        raise ValueError(f"--split={split!r}: expected one of {', '.join(SPLITS)}")
    folder = _only(root, MSMT17_ROOTS, (_TRAIN, _TRAIN_LIST))
    if (folder / _TRAIN_LIST).exists():
        return _read_lists(root, folder, split)
    if split == "train":
        raise ValueError(f"{folder / _TRAIN} holds train and val without telling them apart; give --split=train+val")
    return _read_names(root, folder / _TRAIN)


def _only(root: Path, names: tuple[str, ...], marks: tuple[str, ...]) -> Path:
    """The only folder `root/name` that contains any of the files or folders `marks`."""
    folders = dataset_folders(root, names, lambda folder: any((folder / mark).exists() for mark in marks))
    if not folders:
        raise ValueError(f"{root}: no {' or '.join(marks)} here or in {', '.join(names[1:])}")
    if len(folders) > 1:
        raise ValueError(f"{root} holds {len(folders)} versions: {', '.join(map(str, folders))}; give one")
    return folders[0]


def _read_names(root: Path, folder: Path) -> Reading:
    images, junk = read_names(folder)
    left_out = {f"junk images (identity {JUNK})": junk} if junk else {}
    return Reading(SampleTable(_labelled(root, folder, images)), left_out)


def _read_lists(root: Path, folder: Path, split: str) -> Reading:
    images = image_folder(folder, _LIST_IMAGES)
    lists = [_TRAIN_LIST] + [_VAL_LIST] * (split == "train+val")
    parts = [_labelled(root, images, read_list(folder / name)) for name in lists]
    table = SampleTable(pa.concat_tables(parts), source=f"{folder} ({', '.join(lists)})")
    check_images(table, root)
    return Reading(table)


def _labelled(root: Path, folder: Path, images: NamedImages) -> pa.Table:
    inside = folder.relative_to(root).as_posix()
    paths = images.names if inside == "." else [f"{inside}/{name}" for name in images.names]
    return pa.table({"file_path": paths, "identity": images.ids, "person": images.ids, "camera": images.cameras})
