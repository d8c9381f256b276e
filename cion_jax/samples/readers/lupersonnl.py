"""LUPerson-NL, in each form that its tools write (https://github.com/DengpanFu/LUPerson-NL).

    lmdb/data.mdb, keys.pkl    images by key `<video>_<pid>_<frame>_<object>`, and the list of keys
    <country>/<city>/<id>/     loose crops, `<pid>_<frame>_<object>.jpg`
    dets/, videos/             boxes by frame in `<country>+<city>+<id>.pkl`; `<country>/<city>/<same name>.mp4`

A pid identifies one track of one video, hence it is the tracklet; frames count from 0.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cion_jax.runtime.progress import console, progress
from cion_jax.samples.ingest.crops import OtherScale
from cion_jax.samples.ingest.decoding import BrokenVideo, Frame, read_frames
from cion_jax.samples.readers.cutting import cut_boxes
from cion_jax.samples.readers.pickles import read_pickle
from cion_jax.samples.readers.reading import Reading, integers, parse_names
from cion_jax.samples.stores.folder import read_folder
from cion_jax.samples.stores.lmdb_images import LmdbImages, is_lmdb
from cion_jax.samples.table import EXAMPLES, SampleTable, pc

_KEYS, _DETECTIONS, _VIDEOS = "keys.pkl", "dets", "videos"
_VIDEO = re.compile(r"[^+.][^+]*(\+[^+.][^+]*){2}")  # no "..": the parts become folders
_NAME = r"(?P<tracklet>\d{6,})_(?P<frame>\d{7,})_\d{2,}"


def read_lupersonnl(root: Path, *, crops: str | None = None) -> Reading:
    """Reads LUPerson-NL in `root`, in any of its forms. For an LMDB, `file_path` is the key and `root` the image root.

    Videos that are missing or cannot be opened and boxes of unreadable frames are left out, as by the published tools,
    and so are videos of another size than that of their boxes.
    A video that was cropped before is skipped; delete its crop folder to have it cropped again.

    Args:
        crops: output folder for the boxes of `dets/`, in the layout of loose crops.

    Raises:
        ValueError: none of the three forms, malformed names or keys, a damaged LMDB or pickle, a pickle that names
          code, or keys that are not in the LMDB.
    """
    videos = (root / _DETECTIONS).is_dir() and (root / _VIDEOS).is_dir()
    if (crops is not None) != videos:
        raise ValueError(
            f"{root}: has {_DETECTIONS}/ and {_VIDEOS}/, give the folder of crops to write with --crops"
            if videos
            else f"{root}: --crops is for {_DETECTIONS}/ and {_VIDEOS}/ in it, which are not there"
        )
    if crops is not None:
        return _cut_videos(root, Path(crops))
    return Reading(_read_lmdb(root) if is_lmdb(root) else _table_of_crops(read_folder(root)["file_path"], root))


def _read_lmdb(root: Path) -> SampleTable:
    images = LmdbImages(root)
    file = next((path for path in (root / _KEYS, root.resolve().parent / _KEYS) if path.exists()), root / _KEYS)
    index = read_pickle(file)
    try:
        keys = pa.array(index["keys"], pa.large_string())
        pids = pa.array(np.asarray(index["pids"]).astype(np.int64)) if "pids" in index else None
    except (TypeError, KeyError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{file}: expected a dictionary of keys, a list of text, and pids ({error!s:.300})") from error
    parsed = parse_names(keys, rf"(?P<video>\d{{5,}})_{_NAME}", str(file), "<video>_<pid>_<frame>_<object>")
    tracklet = integers(parsed["tracklet"])
    if pids is not None and not pids.equals(tracklet):
        raise ValueError(f"{file}: its {len(pids)} pids are not those in its {len(keys)} keys; make it again")
    missing = np.flatnonzero(images.missing(index["keys"]))
    if missing.size:
        examples = ", ".join(f"{keys[row].as_py()!r}" for row in missing[:EXAMPLES].tolist())
        raise ValueError(f"{root}: {missing.size} of {len(keys)} keys of {_KEYS} are not in the LMDB: {examples}")
    columns = {"file_path": keys, "video": parsed["video"], "tracklet": tracklet, "frame": integers(parsed["frame"])}
    return SampleTable(pa.table(columns), source=str(file))


def _table_of_crops(paths: pa.ChunkedArray, root: Path) -> SampleTable:
    pattern = rf"(?P<country>[^/]+)/(?P<city>[^/]+)/(?P<id>[^/]+)/{_NAME}\.jpg"
    parsed = parse_names(paths, pattern, str(root), "<country>/<city>/<id>/<pid>_<frame>_<object>.jpg")
    video = pc.binary_join_element_wise(parsed["country"], parsed["city"], parsed["id"], "+")
    tracklet, frame = integers(parsed["tracklet"]), integers(parsed["frame"])
    return SampleTable.from_columns(file_path=paths, video=video, tracklet=tracklet, frame=frame)


def _cut_videos(root: Path, crops: Path) -> Reading:
    """Crops the boxes of every video; videos with omissions are reported."""
    files = sorted(file for file in (root / _DETECTIONS).glob("*.pkl") if not file.name.startswith("."))
    with progress("detections", len(files), "videos") as advance:
        for file in files:  # report malformed files before hours of cropping
            if not _VIDEO.fullmatch(file.stem):
                raise ValueError(f"{file}: expected the name <country>+<city>+<id>.pkl")
            _boxes(file)
            advance(1, file.stem)
    left_out: Counter[str] = Counter()
    parts = []
    with progress("crops", len(files), "videos") as advance:
        for file in files:
            parts.append(pa.array(_cut_video(root, file, crops, left_out), pa.string()))
            advance(1, file.stem)
    paths = pa.chunked_array(parts, pa.string())
    if not len(paths):
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise ValueError(f"{root}: none of the boxes of {len(files)} files in {_DETECTIONS}/ could be cut ({reasons})")
    return Reading(_table_of_crops(paths.take(pc.sort_indices(paths)), crops), dict(left_out))


def _cut_video(root: Path, file: Path, crops: Path, left_out: Counter[str]) -> list[str]:
    """Crops the boxes of one video; returns the paths relative to `crops` and updates `left_out`."""
    numbers, boxes, names = _boxes(file)
    if not names:
        return []
    country, city, name = file.stem.split("+")
    video, folder = root / _VIDEOS / country / city / f"{file.stem}.mp4", f"{country}/{city}/{name}"
    try:
        written, unread = cut_boxes(_readable(video), numbers, boxes, names, crops / folder, skip_unread=True)
    except OtherScale as error:
        _report(video, f"left out, {error}")
        left_out["videos of another size than that of their boxes"] += 1
        return []
    except BrokenVideo as error:
        if video.is_file():
            _report(video, f"left out, {error}")
        left_out["videos that cannot be opened" if video.is_file() else "videos that are not there"] += 1
        return []
    if unread.any():
        left_out["boxes of frames that cannot be read"] += int(unread.sum())
        _report(video, f"{unread.sum()} boxes are left out, {len(set(numbers[unread]))} of its frames cannot be read")
    if outside := int((~written & ~unread).sum()):
        left_out["boxes outside their frame"] += outside
    return [f"{folder}/{name}" for name, has_crop in zip(names, written) if has_crop]


def _readable(video: Path) -> Iterator[Frame]:
    """The frames of a video up to the first decoding error; raises `BrokenVideo` if there are none."""
    frame = None
    try:
        for frame in read_frames(video):
            yield frame
    except BrokenVideo as error:
        if frame is None:
            raise
        _report(video, f"{error}; what is before that is cut")


def _report(video: Path, message: str) -> None:
    console.print(f"{video}: {message}", markup=False, highlight=False, soft_wrap=True)


def _boxes(file: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Frame numbers `[n]`, from 1, boxes `[n, 4]`, rounded, and crop names in a video's pickle."""
    content: Any = read_pickle(file)
    numbers, boxes, names = [], [], []
    try:
        for frame, people in content.items():
            for number, person in people:
                box, pid = np.asarray(person["bbox"], np.float64).reshape(4), person["pid"]
                if min(frame, number, pid) < 0 or not np.isfinite(box).all():
                    raise ValueError(f"frame {frame}, object {number}, pid {pid}, box {box.tolist()}")
                numbers.append(int(frame) + 1)
                boxes.append(np.rint(box))
                names.append(f"{pid:06d}_{frame:07d}_{number:02d}.jpg")
        if len(set(names)) < len(names):
            raise ValueError("an object is twice in a frame, with the same pid")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: expected {{frame: [(object, {{'bbox', 'pid'}}), ...]}} ({error!s:.300})") from error
    return np.array(numbers, np.int64), np.array(boxes).reshape(-1, 4), names
