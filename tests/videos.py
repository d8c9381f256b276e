"""Small videos with known content: flat rectangles that move, whose grey tells the frame."""

from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH = 120, 160
TRACKS = "{frame},{tracklet},{left},{top},{width},{height},1,-1,-1,-1\n"


def write_video(
    path: Path, frames: list[np.ndarray], rotation: int = 0, codec: str | None = None, **flips: bool
) -> None:
    """10 frames a second, losslessly unless a `codec` is named.

    `rotation`: degrees counterclockwise, as phones note it; `flips`: hflip and vflip after it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lossless, pixels = ("libx264rgb", "rgb24") if path.suffix == ".mp4" else ("ffv1", "bgr0")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec or lossless, rate=10, options={"crf": "0"} if path.suffix == ".mp4" else {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p" if codec else pixels
        if rotation or flips:
            stream.set_display_rotation(rotation, **flips)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def copy_video(source: Path, to: Path, start: float = 0.0, **options: str) -> None:
    """Copies what is shown from `start`, in seconds, without encoding it again, as `ffmpeg -ss START -c copy` does.

    What `start` needs for decoding, from the key frame before it, is copied too: an MP4's edit list hides it.
    """
    with av.open(str(source)) as whole, av.open(str(to), "w", options=options) as container:
        stream = whole.streams.video[0]
        copied = container.add_stream_from_template(stream)
        shift = round(start / stream.time_base)
        whole.seek(shift, stream=stream)
        for packet in whole.demux(stream):
            if packet.dts is not None:  # the last one is empty
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copied
                container.mux(packet)


def walker(frame: int, tracklet: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of rectangle `tracklet` (1 or 2) in `frame`, from 1."""
    return (8 + 2 * frame, 20, 30, 70) if tracklet == 1 else (110 - frame, 30, 24, 80)


def colour(frame: int, tracklet: int) -> tuple[int, int, int]:
    return (200, 4 * frame, 20) if tracklet == 1 else (20, 4 * frame, 200)


def scene(count: int) -> list[np.ndarray]:
    """Two rectangles that pass each other without touching, for up to 30 frames."""
    frames = []
    for frame in range(1, count + 1):
        image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        for tracklet in (2, 1):
            left, top, width, height = walker(frame, tracklet)
            image[top : top + height, left : left + width] = colour(frame, tracklet)
        frames.append(image)
    return frames


def tracks(count: int) -> str:
    """MOTChallenge results for `scene`."""
    lines = []
    for frame in range(1, count + 1):
        for tracklet in (1, 2):
            left, top, width, height = walker(frame, tracklet)
            lines.append(TRACKS.format(frame=frame, tracklet=tracklet, left=left, top=top, width=width, height=height))
    return "".join(lines)
