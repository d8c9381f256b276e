"""The video stream of a file that is read, and conversion of its frames to RGB as displayed."""

from typing import Any

import numpy as np

from cion_jax.samples.ingest.optional import needed
from cion_jax.samples.orientation import UPRIGHT, Orientation, displayed, matrix_orientation


class BrokenVideo(ValueError):
    """Raised for a video that cannot be decoded to its end."""


def main_stream(container: Any) -> Any:
    """Returns the largest video stream of an opened file, the default one of several equally large ones.

    A cover picture is not a video. A stream's default flag comes second, because most programs set it for the first
    stream of a file, be it a preview.

    Raises:
        BrokenVideo: There is no video stream.
    """
    streams = _videos(container)
    if not streams:
        found = "a cover picture or an unknown codec only, " if container.streams.video else ""
        raise BrokenVideo(f"{found}no video in this file")
    return max(streams, key=_rank)


def choice_among_streams(container: Any, chosen: Any) -> str | None:
    """Returns a note on the choice of a stream, or None if there is only one."""
    others = [stream for stream in _videos(container) if stream.index != chosen.index]
    if not others:
        return None
    sizes = ", ".join(f"{stream.width}x{stream.height}" for stream in others)
    return (
        f"{len(others) + 1} video streams; the largest, stream {chosen.index} of {chosen.width}x{chosen.height}, is "
        f"read, not {sizes}"
    )


def rgb(frame: Any, size: tuple[int, int]) -> np.ndarray:
    """Converts a frame to `[height, width, 3]` uint8 RGB, scaled to the stored `size` (width, height) and displayed.

    Raises:
        BrokenVideo: It cannot be converted, or is displayed at an angle.
    """
    try:
        image = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
    except (needed("av").FFmpegError, ValueError) as error:
        raise BrokenVideo(f"a frame cannot be converted to RGB ({error})") from error
    return displayed(image, _orientation(frame))


def _videos(container: Any) -> list[Any]:
    """The video streams that are no cover pictures and that there is a decoder for."""
    cover = needed("av.stream").Disposition.attached_pic
    return [s for s in container.streams.video if s.codec_context is not None and not s.disposition & cover]


def _rank(stream: Any) -> tuple[int, bool, int]:
    default = needed("av.stream").Disposition.default
    return (stream.width or 0) * (stream.height or 0), bool(stream.disposition & default), -stream.index


def _orientation(frame: Any) -> Orientation:
    """The orientation noted in a frame's display matrix, where phones keep it instead of turning the pixels."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return UPRIGHT
    try:
        return matrix_orientation(np.frombuffer(matrix, np.int32).tolist())
    except ValueError as error:
        raise BrokenVideo(str(error)) from error
