"""Finding video files and decoding their frames in order."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cion_jax.runtime.file_kinds import other_kind
from cion_jax.runtime.progress import console
from cion_jax.samples.ingest.optional import needed
from cion_jax.samples.ingest.streams import BrokenVideo, choice_among_streams, main_stream, rgb

# File name extensions of videos, compared case-insensitively.
EXTENSIONS = (
    ".3gp",
    ".asf",
    ".avi",
    ".flv",
    ".m2ts",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".ts",
    ".vob",
    ".webm",
    ".wmv",
)
# Decoders conceal damage, and a header may count a few frames that are never shown: a file counts as truncated if
# less than this fraction of what its header declares can be decoded.
_ENOUGH = 0.9


class Frame(NamedTuple):
    """A decoded frame, not yet converted to RGB, because many frames are only counted.

    Attributes:
        number: Frame number in display order, from 1 as in MOTChallenge files.
        image: Returns `[height, width, 3]` uint8 RGB as players display it: rotated, mirrored, and of one size
            throughout the video.
    """

    number: int
    image: Callable[[], np.ndarray]


def read_frames(path: str | os.PathLike) -> Iterator[Frame]:
    """Decodes the main video stream of a file, in one thread: parallelism is across videos.

    If the resolution changes, later frames are scaled to the first one's, as by OpenCV and ffmpeg: trackers' boxes are
    in these pixels. A note says so, and which stream is read if there are several.

    Raises:
        BrokenVideo: Not a video, damaged, or fewer frames than its header declares.
    """
    av: Any = needed("av")
    number, frame, first, size = 0, None, (), ()
    try:
        with _opened(path) as container:
            stream = main_stream(container)
            if note := choice_among_streams(container, stream):
                _say(path, note)
            stream.codec_context.thread_count = 1
            for number, frame in enumerate(container.decode(stream), 1):
                previous, size = size, (frame.width, frame.height)
                first = first or size
                if number > 1 and size != previous:
                    change = f"from frame {number} on {size[0]}x{size[1]} pixels, scaled to the first frame's"
                    _say(path, f"{change} {first[0]}x{first[1]}")
                yield Frame(number, lambda frame=frame, first=first: rgb(frame, first))
            decoded = _share_decoded(container, stream, number, frame)
    except (av.FFmpegError, OSError) as error:
        raise BrokenVideo(f"frame {number + 1} cannot be decoded ({error})") from error
    if number == 0 or decoded < _ENOUGH:
        raise BrokenVideo(f"only {number} frames could be decoded, {decoded:.0%} of it; it seems to be cut off")


def frame_rate(path: str | os.PathLike) -> float:
    """Returns the average frames per second of the main video stream by the file's header, or 25 if it has none."""
    av: Any = needed("av")
    try:
        with _opened(path) as container:
            return float(main_stream(container).average_rate or 25)
    except (av.FFmpegError, OSError) as error:
        raise BrokenVideo(f"cannot be opened ({error})") from error


def _opened(path: str | os.PathLike) -> Any:
    if (kind := other_kind(path, "image")) is not None:
        raise BrokenVideo(f"not a video: {kind}")
    # Titles and comments, which nothing here reads, may be in any encoding.
    return needed("av").open(os.fspath(path), metadata_errors="replace")


def _say(path: str | os.PathLike, message: str) -> None:
    console.print(f"{path}: {message}", markup=False, highlight=False, soft_wrap=True)


def find_videos(folder: str | os.PathLike) -> dict[str, Path]:
    """Finds all videos in `folder`, recursively; keys are relative paths without extension, sorted.

    Links to folders are followed. A folder that can be reached by several paths is listed once: under its real path
    if that is inside `folder`, otherwise under the path of a link.

    Raises:
        ValueError: No such folder, no video in it, or two videos of the same name.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{folder}: no such folder of videos")
    found: dict[str, Path] = {}
    for path in sorted(_files(root)):
        if path.suffix.lower() not in EXTENSIONS or not path.is_file():
            continue
        name = path.relative_to(root).with_suffix("").as_posix()
        if name in found:
            raise ValueError(f"{path} and {found[name]} would both be video {name!r}; rename one of them")
        found[name] = path
    if not found:
        raise ValueError(f"{folder}: no video in this folder or below it ({', '.join(EXTENSIONS)})")
    return found


def _files(root: Path) -> Iterator[Path]:
    """Yields all non-hidden files below `root`. Every folder is visited once, even if links form cycles."""
    seen: set[str] = set()
    waiting = [os.fspath(root)]
    for start in waiting:  # links come last, so that they only name folders without another path
        for folder, below, names in os.walk(start):
            below[:] = sorted(name for name in below if not name.startswith("."))
            if (real := os.path.realpath(folder)) in seen:
                below.clear()
            else:
                seen.add(real)
                waiting += [link for name in below if os.path.islink(link := os.path.join(folder, name))]
                yield from (Path(folder, name) for name in names if not name.startswith("."))


def _share_decoded(container: Any, stream: Any, frames: int, last: Any) -> float:
    """Returns the decoded fraction of what the header declares, in frames or in time; 1 if it declares neither."""
    if last is None:
        return 0.0
    end = (last.time or 0.0) + float(last.duration * last.time_base or 1 / (stream.average_rate or 25))
    if stream.frames:
        share = frames / stream.frames
        if "mp4" in container.format.name and stream.duration:
            # A video trimmed without re-encoding starts with frames that its edit list hides: they are included in
            # the header's frame count, but not in the duration.
            start = float((stream.start_time or 0) * stream.time_base)
            share = max(share, (end - start) / float(stream.duration * stream.time_base))
        return share
    if container.duration and len(container.streams) == 1:  # with audio, the duration may be that of the audio stream
        return end / (container.duration / 1e6)  # in microseconds
    return 1.0
