"""Folders of tracklets: `video/tracklet/<image>`."""

import re
from pathlib import Path

from cion_jax.samples.contents import repeated_frames
from cion_jax.samples.readers.reading import Reading, integers, parse_names
from cion_jax.samples.stores.folder import read_folder
from cion_jax.samples.table import SampleTable


def read_tracklets(root: Path, *, frame: str | None = None) -> Reading:
    r"""Every image `video/tracklet/name` below `root`; a video's name may span several folders.

    Args:
        frame: regular expression whose only group is the frame number in an image's name, such as `f(\d+)`. Without it
          the table has no frames: a number in a name may merely count the images of a tracklet, and tracklets with a
          frame in common are taken to be different people.

    Raises:
        ValueError: an image outside such a folder, a name without frame number, or two images of one frame.
    """
    paths = read_folder(root)["file_path"]
    folders = parse_names(paths, r"(?P<video>.+)/(?P<tracklet>[^/]+)/[^/]+", str(root), "video/tracklet/image")
    columns = {"file_path": paths, **folders}
    if frame is not None:
        columns["frame"] = integers(parse_names(paths, _around(frame), str(root), f"with {frame!r} in them")["frame"])
    table = SampleTable.from_columns(**columns)
    if frame is not None:
        _check_frames(table, root)
    return Reading(table)


def _check_frames(table: SampleTable, root: Path) -> None:
    again, before = repeated_frames(table)
    if len(again):
        number, paths = table["frame"][again[0]], table["file_path"]
        raise ValueError(
            f"{root}: {len(again)} images are in the same frame as another of their tracklet: "
            f"{paths[again[0]]} and {paths[before[0]]} are frame {number}; remove one, or correct --frame"
        )


def _around(frame: str) -> str:
    try:
        groups = re.compile(frame).groups
    except re.error as error:
        raise ValueError(f"--frame={frame!r} is no regular expression ({error!s:.300})") from None
    if groups != 1 or r"(\d+)" not in frame:
        raise ValueError(rf"--frame={frame!r}: expected one group of digits, such as 'f(\d+)'")
    return r".*/[^/]*?" + frame.replace(r"(\d+)", r"(?P<frame>\d+)") + r"[^/]*"
