"""Ingestion of many videos: pending work, worker processes, and one store and table of all crops.

    out/videos/<video>.part/   output of `video.py` for one video, written atomically
    out/crops/                 packed store of all crops
    out/tracks/<video>.txt     all tracklets as MOTChallenge results; reuse with `--tracks=out/tracks` for other crops
    out/samples.parquet        sample table, with the box of every crop in its frame
    out/report.json            counts, settings and broken videos

Parts are needed only to resume an interrupted run: the store has all crops.
"""

import functools
import hashlib
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from cion_jax.runtime.files import atomic_path, is_too_long, read_json, write_json
from cion_jax.runtime.progress import Progress, silent
from cion_jax.runtime.workers import run_in_workers
from cion_jax.samples.formats import write_samples
from cion_jax.samples.ingest.settings import IngestSettings
from cion_jax.samples.ingest.video import about_part, crops_of, ingest_video, tracks_of
from cion_jax.samples.stores.packed import open_shard, pack
from cion_jax.samples.table import SampleTable

_COUNTS = ("frames", "tracklets", "crops", "seconds")
_TOO_LONG = "the file name is too long: those of its results are up to 5 bytes longer; rename it"
_EXAMPLES = 10  # number of broken videos listed by name


class _Task(NamedTuple):
    """One video to ingest in a worker process."""

    name: str
    path: Path
    part: Path
    settings: IngestSettings
    sources: dict[str, Any]


def ingest_videos(
    videos: Mapping[str, Path],
    out: Path,
    settings: IngestSettings,
    *,
    workers: int,
    progress: Progress = silent,
) -> dict[str, str]:
    """Creates the missing parts of `videos` (by name); returns the broken videos with the reason for each.

    A video is skipped, and retried by the next call, if it cannot be decoded, has no tracks, makes a library fail or
    makes its process die. Call it under `if __name__ == "__main__":`.

    Raises:
        ValueError: Parts in `out` were made with other settings.
        OSError, MemoryError: A fault of the machine, such as a full disk, that would affect all videos.
    """
    broken = {name: _TOO_LONG for name in videos if is_too_long(_part(out, name))}
    tasks = [
        _Task(name, path, _part(out, name), settings, settings.sources(name, path))
        for name, path in videos.items()
        if name not in broken
    ]
    pending = [task for task in tasks if not _is_done(task)]
    frames = crops = 0

    def on_message(new_frames: int) -> None:
        nonlocal frames
        frames += new_frames
        advance(0, f"{frames:,} frames, {crops:,} crops" + (f", {len(broken)} broken" if broken else ""))

    with progress("Ingesting", len(tasks), "videos") as advance:
        advance(len(tasks) - len(pending))
        for task, made in run_in_workers(_ingest, pending, workers, on_message):
            if isinstance(made, int):
                crops += made
            else:
                broken[task.name] = str(made)
            advance(1)
            on_message(0)
    return dict(sorted(broken.items()))


def left_out(broken: Mapping[str, str], total: int) -> str:
    """Summarises in a few lines which of `total` videos are `broken` and why; report.json has the full list."""
    lines = [f"{len(broken)} of {total} videos are left out:"]
    lines += [f"{name}: {reason}" for name, reason in list(broken.items())[:_EXAMPLES]]
    if len(broken) > _EXAMPLES:
        lines.append(f"... and {len(broken) - _EXAMPLES} more")
    return "\n  ".join(lines)


def gather(
    names: Sequence[str], out: Path, settings: IngestSettings, broken: Mapping[str, str], *, progress: Progress = silent
) -> dict:
    """Packs the crops of all parts into one store, writes tracks, table and report, and returns the report.

    Raises:
        ValueError: There are no crops.
    """
    done = [name for name in names if name not in broken]
    counts = [about_part(_part(out, name)) or {} for name in done]
    tables = [crops_of(_part(out, name)) for name in done]
    if not sum(table.num_rows for table in tables):
        raise ValueError(_nothing_found(names, broken))
    table = pa.concat_tables(tables)
    samples = SampleTable(table.drop_columns("record"), source=str(out))
    _start_store(out, [_part(out, name) for name in done])
    pack(samples["file_path"], _reader(out), out / "crops", progress=progress)
    for name in done:
        if not (file := out / "tracks" / f"{name}.txt").exists():
            with atomic_path(file) as temporary:
                shutil.copyfile(tracks_of(_part(out, name)), temporary)
    write_samples(samples, out / "samples.parquet")
    report = {
        "videos": len(names),
        "broken": dict(broken),
        **{key: round(sum(count[key] for count in counts), 1) for key in _COUNTS},
        "settings": settings.described(),
    }
    write_json(out / "report.json", report)
    return report


def _ingest(task: _Task, send: Callable[[int], None]) -> int | str:
    """Runs in a worker; returns the number of crops, or the reason why the video is broken."""
    about = {"settings": task.settings.described(), "sources": task.sources}
    try:
        tracks = task.settings.open_tracks(task.name, task.path)
        change = task.settings.change()
        made = ingest_video(
            task.path, task.name, tracks, task.settings.crops, task.part, about=about, change=change, on_progress=send
        )
    except ValueError as error:  # the video or its tracks; settings common to all videos were checked before
        return str(error)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # OpenCV and onnxruntime errors for this video have no common base class
        return " ".join("".join(traceback.format_exception_only(error)).split())
    return made["crops"]


def _is_done(task: _Task) -> bool:
    """True if the part exists and was made from this version of the video; other settings are a `ValueError`."""
    about = about_part(task.part)
    if about is None:
        return False
    if about["settings"] != task.settings.described():
        raise ValueError(
            f"{task.part} was made with the settings {about['settings']}, now they are {task.settings.described()}; "
            "give the same ones or another --out"
        )
    return about["sources"] == task.sources


def _part(out: Path, name: str) -> Path:
    return out / "videos" / f"{name}.part"


def _start_store(out: Path, parts: Sequence[Path]) -> None:
    """Removes a store and tracks that were built, or partly built, from different parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update((part / "shard-00000.sha256").read_bytes())
        digest.update((part / "crops.parquet").read_bytes())
        digest.update(tracks_of(part).read_bytes())
    made_of = {"made_of": digest.hexdigest()}
    mark = out / "crops.json"
    if mark.exists() and read_json(mark) == made_of:
        return
    for folder in ("crops", "tracks"):
        shutil.rmtree(out / folder, ignore_errors=True)
    write_json(mark, made_of)


def _reader(out: Path) -> Callable[[str], bytes]:
    """Returns a function that reads a crop by its file_path."""

    @functools.lru_cache(maxsize=64)  # crops are requested video by video, from several threads
    def opened(video: str) -> tuple[Any, dict[str, int]]:
        part = _part(out, video)
        table = crops_of(part)
        return open_shard(part, 0), dict(zip(table["file_path"].to_pylist(), table["record"].to_pylist()))

    def read(path: str) -> bytes:
        reader, records = opened(path.rsplit("/", 2)[0])
        return reader.read([records[path]])[0]

    return read


def _nothing_found(names: Sequence[str], broken: Mapping[str, str]) -> str:
    if not broken:
        return f"nobody was found in {len(names)} videos; try another detector, or lower --min_height or --min_crops"
    name, reason = next(iter(broken.items()))
    return f"no crops: {len(broken)} of {len(names)} videos are left out, the first, {name}: {reason}"
