"""The training images of ReID benchmarks, as tables with `identity`, `person` and `camera`.

Their queries and galleries are for `cion_jax.evaluation`.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from cion_jax.samples.readers.reading import Reading, integers, parse_names
from cion_jax.samples.stores.folder import EXTENSIONS
from cion_jax.samples.stores.sources import check_images
from cion_jax.samples.table import SampleTable, pc

SPLITS = ("train", "train+val")
_TRAIN = "bounding_box_train"
_MARKET1501 = (".", "market1501", "Market-1501-v15.09.15")
_MSMT17 = (".", "MSMT17_V1", "MSMT17_V2", "MSMT17", "msmt17")
_LISTED_IN = ("train", "mask_train_v2")  # the image folder of lists: version 1, and 2, in which faces are masked


def read_market1501(root: Path) -> Reading:
    """Market-1501: `bounding_box_train/<identity>_c<camera>...` in `root` or a folder in it that has a known name.

    Images of identity -1, junk, are left out.
    """
    return _read_named(root, _only(root, _MARKET1501, (_TRAIN,)) / _TRAIN)


def read_msmt17(root: Path, *, split: str) -> Reading:
    """MSMT17 in `root` or a folder in it that has a known name, in the layout that is found there.

    - `list_train.txt` and `list_val.txt`, of lines `path identity`, with `train/` (version 1) or `mask_train_v2/`
    - `bounding_box_train/`, named as Market-1501 is, which holds both lists' images

    `split` is "train", as the benchmark defines it and torchreid and FastReID train, or "train+val", as the paper
    and most of later work do: their results cannot be compared.

    Raises:
      ValueError: no such layout or two of them, a split that the layout does not tell apart, a bad line or name.
    """
    if split not in SPLITS:
        raise ValueError(f"--split={split!r}: expected one of {', '.join(SPLITS)}")
    folder = _only(root, _MSMT17, (_TRAIN, "list_train.txt"))
    if (folder / "list_train.txt").exists():
        return _read_lists(root, folder, split)
    if split == "train":
        raise ValueError(f"{folder / _TRAIN} holds train and val without telling them apart; give --split=train+val")
    return _read_named(root, folder / _TRAIN)


def _only(root: Path, names: tuple[str, ...], marks: tuple[str, ...]) -> Path:
    """The one folder `root/name` that holds any of `marks`."""
    folders = [root / name for name in names]
    folders = {folder.resolve(): folder for folder in folders if any((folder / mark).exists() for mark in marks)}
    if not folders:
        raise ValueError(f"{root}: no {' or '.join(marks)} here or in {', '.join(names[1:])}")
    if len(folders) > 1:
        raise ValueError(f"{root} holds {len(folders)} versions: {', '.join(map(str, folders.values()))}; give one")
    return next(iter(folders.values()))


def _read_named(root: Path, folder: Path) -> Reading:
    """Images whose names begin with `<identity>_c<camera>`."""
    files = (file for file in folder.iterdir() if not file.name.startswith("."))  # such as the "._x.jpg" of macOS
    names = sorted(file.name for file in files if file.suffix.lower() in EXTENSIONS)
    if not names:
        raise ValueError(f"{folder}: no images ({', '.join(EXTENSIONS)})")
    pattern = r"(?P<identity>-?\d+)_c(?P<camera>\d+).*"
    parsed = parse_names(pa.array(names), pattern, str(folder), "<identity>_c<camera>...")
    junk = np.asarray(pc.equal(parsed["identity"], "-1"))
    table = _labelled(root, folder, pa.array(names), integers(parsed["identity"]), parsed["camera"])
    return Reading(_select(table, ~junk), {"junk images (identity -1)": int(junk.sum())} if junk.any() else {})


def _select(table: pa.Table, keep: np.ndarray) -> SampleTable:
    return SampleTable(table.filter(pa.array(keep)))


def _read_lists(root: Path, folder: Path, split: str) -> Reading:
    found = [folder / name for name in _LISTED_IN if (folder / name).is_dir()]
    if len(found) != 1:
        raise ValueError(
            f"{folder}: expected one of the image folders {', '.join(_LISTED_IN)} beside the lists, found {len(found)}"
        )
    lists = ["list_train.txt"] + ["list_val.txt"] * (split == "train+val")
    parts = [_read_list(root, found[0], folder / name) for name in lists]
    table = SampleTable(pa.concat_tables(parts), source=f"{folder} ({', '.join(lists)})")
    check_images(table, root)
    return Reading(table)


def _read_list(root: Path, images: Path, file: Path) -> pa.Table:
    if not file.is_file():
        raise ValueError(f"{file}: no such file; it says which images belong to which split")
    lines = pa.array(file.read_text(encoding="utf-8").splitlines(), pa.string())
    line = parse_names(lines, r"(?P<path>\S+) (?P<identity>\d+)\s*", str(file), "lines '<path> <identity>'")
    pattern = r"(?:.*/)?[^/_]+_[^/_]+_(?P<camera>\d+)_[^/]*"
    camera = parse_names(line["path"], pattern, str(file), "'<identity>_<number>_<camera>_...'")["camera"]
    return _labelled(root, images, line["path"], integers(line["identity"]), camera)


def _labelled(root: Path, folder: Path, names: pa.Array, identity: pa.Array, camera: pa.Array) -> pa.Table:
    inside = folder.relative_to(root).as_posix()
    paths = pc.binary_join_element_wise(inside, names, "/") if inside != "." else names
    return pa.table({"file_path": paths, "identity": identity, "person": identity, "camera": integers(camera)})
