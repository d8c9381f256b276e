"""One video from pixels to a part: its crops, what is known about them, and its tracklets."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from cion_jax.runtime.files import atomic_path, read_json, write_json
from cion_jax.samples.ingest.crops import cut, encode
from cion_jax.samples.ingest.decoding import Frame, read_frames
from cion_jax.samples.ingest.tracks import NOBODY, Tracked, Tracks
from cion_jax.samples.stores.packed import write_shard

_CROPS, _TRACKS, _ABOUT = "crops.parquet", "tracks.txt", "about.json"
_PROGRESS_FRAMES = 100  # frames from one word about progress to the next
Change = Callable[[np.ndarray], np.ndarray]  # what is done to a crop before it is written


@dataclasses.dataclass(frozen=True)
class CropSettings:
    """The choice of a tracklet's boxes that become crops.

    every: frames from one crop to the next. They are the same frames for all tracklets of a video: two that share
      a frame are two people, which calibration and `correlate --forbid_covisible` use.
    min_height: pixels; smaller people are left out.
    min_crops: of a tracklet; shorter ones are left out.
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
    """Writes the folder `part`, whole or not at all, and returns what its about.json says: `about` and counts.

    `on_progress` is called now and then with the number of frames since it was called before.

    shard-00000.*    the crops' JPEGs in the order of frames, as in a packed store
    crops.parquet    file_path, video, tracklet, frame and box of every crop that counts, and its record
    tracks.txt       all boxes of all tracklets, as MOTChallenge results are written
    about.json       how it was made, and of how many frames, tracklets and crops

    Raises:
      BrokenVideo: the video cannot be decoded to its end.
      ValueError: the tracks are of another video.
    """
    collector = _Collector(name, tracks, settings, change)
    started = time.perf_counter()
    with atomic_path(part) as folder:
        folder.mkdir()
        write_shard(folder, 0, collector.jpegs(_reported(read_frames(path), on_progress)))
        table = collector.table()
        with atomic_path(folder / _CROPS) as temporary:  # on disk before the part is
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
    """Follows the tracklets through a video and remembers what was cut out."""

    def __init__(self, name: str, tracks: Tracks, settings: CropSettings, change: Change | None):
        self._name, self._tracks, self._settings, self._change = name, tracks, settings, change
        self._boxes: list[tuple[int, Tracked]] = []
        self._cut: list[tuple[int, Tracked]] = []
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

    def _crops(self, number: int, tracked: Tracked, image: np.ndarray) -> Iterator[bytes]:
        kept = []
        for row, box in enumerate(tracked.boxes):
            crop = cut(image, box, self._settings.min_height)
            if crop is not None:
                kept.append(row)
                yield encode(self._change(crop) if self._change else crop)
        self._cut.append((number, Tracked(*(column[kept] for column in tracked))))

    def table(self) -> pa.Table:
        """The crops of tracklets that are long enough, by tracklet and frame; `record`: the place in the shard."""
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
    """The content of a part's about.json; None if there is no such part."""
    return read_json(part / _ABOUT) if part.is_dir() else None


def crops_of(part: Path) -> pa.Table:
    """The table of a part's crops."""
    return pyarrow.parquet.read_table(part / _CROPS)


def tracks_of(part: Path) -> Path:
    """The file of a part's tracklets."""
    return part / _TRACKS


def _reported(frames: Iterator[Frame], on_progress: Callable[[int], None]) -> Iterator[Frame]:
    number = 0
    for number, image in frames:
        if number % _PROGRESS_FRAMES == 0:
            on_progress(_PROGRESS_FRAMES)
        yield Frame(number, image)
    on_progress(number % _PROGRESS_FRAMES)


def _once(image: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    """`image` that is converted the first time it is asked for only."""
    converted: list[np.ndarray] = []

    def get() -> np.ndarray:
        if not converted:
            converted.append(image())
        return converted[0]

    return get


def _joined(parts: list[tuple[int, Tracked]]) -> tuple[np.ndarray, Tracked]:
    """Frame numbers and tracked people of many frames, a row each."""
    parts = [(0, NOBODY), *parts]  # so that there is something to join
    frames = np.repeat([number for number, _ in parts], [len(tracked.tracklets) for _, tracked in parts])
    columns = zip(*(tracked for _, tracked in parts))
    return frames.astype(np.int64), Tracked(*(np.concatenate(column) for column in columns))
