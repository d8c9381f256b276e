"""MOTChallenge sequences: crops of the boxes in text files, from frame folders or videos."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cion_jax.runtime.progress import progress
from cion_jax.samples.ingest.decoding import EXTENSIONS, Frame, read_frames
from cion_jax.samples.motchallenge import MotBoxes, read_mot
from cion_jax.samples.readers.cutting import cut_boxes
from cion_jax.samples.readers.frames import read_frame_folder
from cion_jax.samples.readers.reading import Reading
from cion_jax.samples.seqinfo import FRAMES, SequenceInfo, find_seqinfo, read_seqinfo
from cion_jax.samples.table import SampleTable

# MOT17 contains every sequence three times, with the detections of three detectors and the same ground truth.
_DETECTOR = re.compile(r"(MOT17-\d+)-(DPM|FRCNN|SDP)")


class _Sequence(NamedTuple):
    name: str
    folder: Path  # contains gt/ and det/
    frames: Callable[[], Iterable[Frame]]
    left_out: dict[str, int] = {}  # files that are no frames


def read_sequences(
    root: Path, *, tracks: str, crops: str, classes: Sequence[int] | None = None, first_frame: int = 1
) -> Reading:
    """Reads one sequence or a folder of them, each a folder with `img1/` (or `imDir` of its `seqinfo.ini`) or a video.

    Args:
        tracks: "gt" for `gt/gt.txt`, "det" for `det/det.txt` (crops then have no tracklet), or a tracker's results: a
          folder of `<sequence>.txt`, or one such file for one sequence. An empty file of detections or results means
          that nobody was found.
        crops: output folder of crops, `<sequence>/<id>/<frame>.jpg`; each sequence is written atomically, and existing
          sequences are not cropped again.
        classes: the classes that are people, where the files of boxes have classes (`read_mot`).
        first_frame: 0 if files of boxes number the first frame 0. The table's frames count from 1.

    Raises:
        ValueError: no sequences, missing, malformed or truncated files, tracks without ids, or no boxes.
    """
    sequences = _sequences(root, first_frame)
    if len(sequences) > 1 and Path(tracks).is_file():
        raise ValueError(
            f"--tracks={tracks}: one file for the {len(sequences)} sequences in {root}; give a folder that has a "
            f"<sequence>.txt for each, such as {sequences[0].name}.txt"
        )
    left_out: Counter[str] = Counter()
    if tracks == "gt":
        sequences, copies = _first_copies(sequences)
        left_out.update({"sequences with the ground truth of another (MOT17's detectors)": copies} if copies else {})
    parts = []
    with progress("crops", len(sequences), "sequences") as advance:
        for sequence in sequences:
            left_out.update(sequence.left_out)
            boxes = _read_boxes(_boxes_of(sequence, tracks), tracks, classes, first_frame)
            if boxes is None:
                left_out["sequences in which nobody was found (their file is empty)"] += 1
            else:
                table, outside = _cut(sequence, boxes, Path(crops))
                left_out.update({f"boxes {reason}": count for reason, count in boxes.left_out.items()})
                left_out.update({"boxes outside their frame": outside} if outside else {})
                parts.append(table)
            advance(1, sequence.name)
    if not parts:
        raise ValueError(f"{root}: nobody was found in any of {len(sequences)} sequences, the files of boxes are empty")
    return Reading(SampleTable(pa.concat_tables(parts), source=str(root)), dict(left_out))


def _read_boxes(file: Path, tracks: str, classes: Sequence[int] | None, first_frame: int) -> MotBoxes | None:
    """The boxes of one sequence; None if the file is empty, which is an error for ground truth."""
    if tracks != "gt" and file.is_file() and not file.stat().st_size:
        return None
    kind = tracks if tracks in ("gt", "det") else "tracks"
    boxes = read_mot(file, kind, classes=classes, first_frame=first_frame)
    if boxes.ids is None and tracks != "det":
        raise ValueError(f"{file}: boxes without tracklets (id -1); run a tracker on them, or give --tracks=det")
    return boxes


def _cut(sequence: _Sequence, boxes: MotBoxes, crops: Path) -> tuple[pa.Table, int]:
    """The table of a sequence's crops, and the number of boxes outside their frame."""
    if boxes.ids is None:
        names = [f"{frame:06d}_{index:03d}.jpg" for frame, index in zip(boxes.frames, _index_in_frame(boxes.frames))]
    else:
        names = [f"{track:06d}/{frame:06d}.jpg" for track, frame in zip(boxes.ids, boxes.frames)]
    try:
        kept, _ = cut_boxes(sequence.frames(), boxes.frames, boxes.boxes, names, crops / sequence.name)
    except ValueError as error:
        raise ValueError(f"sequence {sequence.name}: {error}") from error
    table = {
        "file_path": pa.array([f"{sequence.name}/{name}" for name in names], pa.large_string()),
        "video": pa.array([sequence.name] * len(names), pa.large_string()),
        **({} if boxes.ids is None else {"tracklet": pa.array(boxes.ids)}),
        "frame": pa.array(boxes.frames),
    }
    return pa.table(table).filter(pa.array(kept)), int((~kept).sum())


def _index_in_frame(frames: np.ndarray) -> np.ndarray:
    """Index of each box within its frame, from 0, in file order, `[n]` int64."""
    order = np.argsort(frames, kind="stable")
    _, starts, counts = np.unique(frames[order], return_index=True, return_counts=True)
    indices = np.empty(len(frames), np.int64)
    indices[order] = np.arange(len(frames)) - np.repeat(starts, counts)
    return indices


def _sequences(root: Path, first_frame: int) -> list[_Sequence]:
    """The sequences in `root`, sorted by name, or `root` itself if it is one."""
    if _is_sequence(root):
        return [_of_folder(root, first_frame)]
    sequences = []
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and _is_sequence(path):
            sequences.append(_of_folder(path, first_frame))
        elif path.suffix.lower() in EXTENSIONS:
            sequences.append(_Sequence(path.stem, root / path.stem, lambda path=path: read_frames(path)))
    if not sequences:
        raise ValueError(f"{root}: no sequence, a folder with {FRAMES}/ or seqinfo.ini, and no video in it")
    names = [sequence.name for sequence in sequences]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{root}: sequence {twice[0]} is there twice, as a folder and a video or two videos")
    return sequences


def _is_sequence(folder: Path) -> bool:
    return (folder / FRAMES).is_dir() or find_seqinfo(folder) is not None


def _of_folder(folder: Path, first_frame: int) -> _Sequence:
    """A folder of frames; `seqinfo.ini` may give their folder, number and size."""
    file = find_seqinfo(folder)
    info = read_seqinfo(file) if file else SequenceInfo()
    images = read_frame_folder(folder / info.folder)
    if info.length is not None and len(images.files) < info.length:
        raise ValueError(f"{folder / info.folder}: {len(images.files)} frames, expected {info.length}")
    if 0 in images.files:
        if first_frame == 1:
            raise ValueError(
                f"{folder / info.folder}: frames numbered from 0; MOTChallenge's, and its boxes, count from 1: rename "
                "them, or give --first_frame=0 if the boxes count from 0 too"
            )
        images = images._replace(files={number + 1: image for number, image in images.files.items()})
    return _Sequence(folder.resolve().name, folder, lambda: images.frames(info.size), images.left_out)


def _first_copies(sequences: list[_Sequence]) -> tuple[list[_Sequence], int]:
    """One copy of each sequence that is present with several detectors, and the number of other copies."""
    kept = {}
    for sequence in sequences:
        match = _DETECTOR.fullmatch(sequence.name)
        kept.setdefault(match[1] if match else sequence.name, sequence)
    return list(kept.values()), len(sequences) - len(kept)


def _boxes_of(sequence: _Sequence, tracks: str) -> Path:
    if tracks in ("gt", "det"):
        return sequence.folder / tracks / f"{tracks}.txt"
    given = Path(tracks)
    return given / f"{sequence.name}.txt" if given.is_dir() else given
