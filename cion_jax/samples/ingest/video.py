"""Ingestion of one video into a part: its crops, their table, and its tracklets."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from cion_jax.runtime.files import atomic_path, read_json, write_json
from cion_jax.samples.ingest.crops import check_scale, cut, encode, outside
from cion_jax.samples.ingest.decoding import Frame, read_frames
from cion_jax.samples.ingest.tracks import NOBODY, Tracked, Tracks
from cion_jax.samples.stores.packed import write_shard

_CROPS, _TRACKS, _ABOUT = "crops.parquet", "tracks.txt", "about.json"
_PROGRESS_FRAMES = 100  # interval between progress reports, in frames
Change = Callable[[np.ndarray], np.ndarray]  # applied to a crop before it is written


@dataclasses.dataclass(frozen=True)
class CropSettings:
    """Selection of the boxes that become crops.

    Attributes:
        every: Interval between crops, in frames. All tracklets of a video use the same frames: two tracklets that
            share a frame are different people, which calibration and `correlate --forbid_covisible` use.
        min_height: Minimum height of a person, in pixels.
        min_crops: Minimum number of crops per tracklet; shorter tracklets are dropped.
    """

    every: int = 5
    min_height: int = 64
    min_crops: int = 2

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")


def ingest_video(
    path: Path,
    name: str,
    tracks: Tracks,
    settings: CropSettings,
    part: Path,
    *,
    about: dict,
    change: Change | None,
    on_progress: Callable[[int], None],
) -> dict:
    """Writes the folder `part` atomically and returns the contents of its about.json: `about` and counts.

    `on_progress` is called periodically with the number of frames since the last call.

    shard-00000.*    the crops' JPEGs in frame order, as in a packed store
    crops.parquet    file_path, video, tracklet, frame, box and record of every crop that is kept
    tracks.txt       all boxes of all tracklets, in MOTChallenge result format
    about.json       settings and sources, and the numbers of frames, tracklets and crops

    Raises:
        BrokenVideo: The video cannot be decoded to its end.
        ValueError: The tracks belong to another video, or to frames of another size.
    """
    collector = _Collector(name, tracks, settings, change)
    started = time.perf_counter()
    with atomic_path(part) as folder:
        folder.mkdir()
        write_shard(folder, 0, collector.jpegs(_reported(read_frames(path), on_progress)))
        table = collector.table()
        with atomic_path(folder / _CROPS) as temporary:  # flushed to disk before the part is renamed
            pyarrow.parquet.write_table(table, temporary, compression="zstd")
        with atomic_path(folder / _TRACKS) as temporary:
            temporary.write_text(collector.mot())
        counts = {
            "frames": collector.frames,
            "tracklets": len(np.unique(table["tracklet"])),
            "crops": table.num_rows,
            "seconds": round(time.perf_counter() - started, 2),
        }
        write_json(folder / _ABOUT, about | counts)
    return about | counts


class _Collector:
    """Collects the boxes and crops of all tracklets of a video."""

    def __init__(self, name: str, tracks: Tracks, settings: CropSettings, change: Change | None):
        self._name, self._tracks, self._settings, self._change = name, tracks, settings, change
        self._boxes: list[tuple[int, Tracked]] = []
        self._cut: list[tuple[int, Tracked]] = []
        self._outside, self._seen = 0, 0  # boxes at the frames of crops
        self.frames = 0

    def jpegs(self, frames: Iterator[Frame]) -> Iterator[bytes]:
        for number, image in frames:
            self.frames = number
            pixels = _once(image)
            tracked = self._tracks.at(number, pixels)
            if not len(tracked.tracklets):
                continue
            self._boxes.append((number, tracked))
            if (number - 1) % self._settings.every == 0:
                yield from self._crops(number, tracked, pixels())
        self._tracks.end(self.frames)
        check_scale(self._outside, self._seen)

    def _crops(self, number: int, tracked: Tracked, image: np.ndarray) -> Iterator[bytes]:
        kept = []
        self._outside += outside(image, tracked.boxes)
        self._seen += len(tracked.boxes)
        for row, box in enumerate(tracked.boxes):
            crop = cut(image, box, self._settings.min_height)
            if crop is not None:
                kept.append(row)
                yield encode(self._change(crop) if self._change else crop)
        self._cut.append((number, Tracked(*(column[kept] for column in tracked))))

    def table(self) -> pa.Table:
        """Returns the crops of long enough tracklets, sorted by tracklet and frame; `record` indexes the shard."""
        frames, tracked = _joined(self._cut)
        numbers, counts = np.unique(tracked.tracklets, return_counts=True)
        long = np.isin(tracked.tracklets, numbers[counts >= self._settings.min_crops])
        rows = np.flatnonzero(long)
        rows = rows[np.lexsort((frames[rows], tracked.tracklets[rows]))]
        tracklets, frames = tracked.tracklets[rows], frames[rows]
        paths = [f"{self._name}/{tracklet:06d}/{frame:07d}.jpg" for tracklet, frame in zip(tracklets, frames)]
        left, top, right, bottom = tracked.boxes[rows].T
        return pa.table(
            {
                "file_path": pa.array(paths, pa.large_string()),
                "video": pa.array([self._name] * len(rows), pa.large_string()),
                "tracklet": tracklets,
                "frame": frames,
                "left": left,
                "top": top,
                "width": right - left,
                "height": bottom - top,
                "record": rows,
            }
        )

    def mot(self) -> str:
        lines = []
        for number, tracked in self._boxes:
            for tracklet, (left, top, right, bottom), score in zip(*(column.tolist() for column in tracked)):
                box = f"{left:.2f},{top:.2f},{right - left:.2f},{bottom - top:.2f}"
                lines.append(f"{number},{tracklet},{box},{score:.4f},-1,-1,-1\n")
        return "".join(lines)


def about_part(part: Path) -> dict | None:
    """Returns the contents of a part's about.json, or None if the part does not exist."""
    return read_json(part / _ABOUT) if part.is_dir() else None


def crops_of(part: Path) -> pa.Table:
    """Returns the table of a part's crops."""
    return pyarrow.parquet.read_table(part / _CROPS)


def tracks_of(part: Path) -> Path:
    """Returns the path of a part's tracklet file."""
    return part / _TRACKS


def _reported(frames: Iterator[Frame], on_progress: Callable[[int], None]) -> Iterator[Frame]:
    number = 0
    for number, image in frames:
        if number % _PROGRESS_FRAMES == 0:
            on_progress(_PROGRESS_FRAMES)
        yield Frame(number, image)
    on_progress(number % _PROGRESS_FRAMES)


def _once(image: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    """Caches the result of `image`, so that the frame is converted at most once."""
    converted: list[np.ndarray] = []

    def get() -> np.ndarray:
        if not converted:
            converted.append(image())
        return converted[0]

    return get


def _joined(parts: list[tuple[int, Tracked]]) -> tuple[np.ndarray, Tracked]:
    """Concatenates the people of many frames; returns their frame numbers and rows."""
    parts = [(0, NOBODY), *parts]  # so that there is always something to concatenate
    frames = np.repeat([number for number, _ in parts], [len(tracked.tracklets) for _, tracked in parts])
    columns = zip(*(tracked for _, tracked in parts))
    return frames.astype(np.int64), Tracked(*(np.concatenate(column) for column in columns))
