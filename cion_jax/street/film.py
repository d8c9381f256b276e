"""Full-frame videos from the crawl's cameras, with ground truth.

    out/videos/v00000.mp4   H.264
    out/truth/v00000.txt    MOTChallenge ground truth: frame (from 1), person, box, flag, class, visibility

Cameras, people and person ids are those of the crawl.
"""

import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cion_jax.runtime.files import atomic_path
from cion_jax.runtime.progress import progress
from cion_jax.runtime.workers import spawned_pool
from cion_jax.samples.ingest.optional import needed
from cion_jax.street.camera import Camera, develop, make_camera
from cion_jax.street.config import StreetConfig
from cion_jax.street.figure import draw_person
from cion_jax.street.passages import FilmConfig, Passage, plan_video
from cion_jax.street.pose import Pose
from cion_jax.street.randomness import Population, Stream, generator
from cion_jax.street.render import draw_occluders

_QUALITY = {"crf": "18", "preset": "veryfast", "threads": "1"}  # more threads would only change the encoding time
_COUNTED = 0.3  # visibility below which a person is not scored
_LIMB = 0.055  # extent of the body beyond its joints, in body heights


class TrueBox(NamedTuple):
    """Ground-truth box of a person: left, top, right and bottom in pixels, and the visible fraction in [0, 1]."""

    number: int
    box: tuple[float, float, float, float]
    visible: float


def film_street(config: StreetConfig, out: str | os.PathLike, film: FilmConfig, workers: int | None = None) -> None:
    """Renders all of the crawl's videos into the folder `out`, which is written atomically.

    With more than one of `workers` (by default one per core), call this under `if __name__ == "__main__":`.

    Raises:
        ValueError: The package `av`, which writes videos, is not installed.
    """
    needed("av")
    workers = min(workers or os.cpu_count() or 1, config.crawl_videos)
    with atomic_path(out) as folder, progress("film", config.crawl_videos, "videos") as advance:
        for name in ("videos", "truth"):
            (folder / name).mkdir(parents=True)
        if workers == 1:
            for video in range(config.crawl_videos):
                film_video(config, film, video, folder)
                advance(1)
            return
        pool = spawned_pool(workers)
        try:
            jobs = [pool.submit(film_video, config, film, video, folder) for video in range(config.crawl_videos)]
            for done in as_completed(jobs):
                done.result()
                advance(1)
        finally:
            pool.shutdown(cancel_futures=True)


def film_video(config: StreetConfig, film: FilmConfig, video: int, folder: Path) -> None:
    """Writes one video and its ground truth."""
    av: Any = needed("av")
    lines = []
    with av.open(str(folder / "videos" / f"v{video:05d}.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=film.rate, options=_QUALITY)
        stream.height, stream.width, stream.pix_fmt = film.height, film.width, "yuv420p"
        for number, (image, truth) in enumerate(render_video(config, film, video), 1):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            lines += [_mot_line(number, true) for true in truth]
        container.mux(stream.encode())
    (folder / "truth" / f"v{video:05d}.txt").write_text("".join(lines))


def render_video(config: StreetConfig, film: FilmConfig, video: int) -> Iterator[tuple[np.ndarray, list[TrueBox]]]:
    """Yields every frame, uint8 `[height, width, 3]`, with the boxes of the people in it, farthest first."""
    sized = dataclasses.replace(config, height=film.height, width=film.width)
    camera = make_camera(sized, Population.CRAWL, video)
    seconds, passages = plan_video(config, film, video)
    rng = generator(config, Population.CRAWL, Stream.FILM, video, 1)
    left = np.array([float(rng.integers(camera.around - film.width))])
    street = camera.plate[:, None, :, int(left[0]) : int(left[0]) + film.width]
    for frame in range(max(1, round(seconds * film.rate))):
        canvas = np.ascontiguousarray(street)
        seen = []
        for passage in passages:
            if passage.is_seen(film, frame / film.rate):
                pose = _draw(canvas, config, film, camera, passage, frame / film.rate)
                seen.append((passage.number, _around(pose, passage)))
        draw_occluders(canvas, sized, camera, left)
        yield develop(canvas, camera, np.ones(1), rng)[0], _visible(film, seen)


def _draw(
    canvas: np.ndarray, config: StreetConfig, film: FilmConfig, camera: Camera, passage: Passage, seconds: float
) -> Pose:
    pose, box = passage.pose(config, film, camera, seconds)
    draw_person(canvas, passage.person, pose, box, camera.light)
    return pose


def _around(pose: Pose, passage: Passage) -> tuple[float, float, float, float]:
    joints = np.concatenate(list(pose.joints.values()))
    limb = _LIMB * passage.height
    left, top = (joints.min(0) - limb).tolist()
    right, bottom = (joints.max(0) + limb).tolist()
    crown = float(pose.joints["head"][0, 1]) - 0.084 * passage.height
    return left, min(crown, top + limb), right, bottom - 0.6 * limb  # shoes are thinner than hips


def _visible(film: FilmConfig, seen: list[tuple[int, tuple[float, float, float, float]]]) -> list[TrueBox]:
    """Adds to each box the fraction that is inside the frame and not covered by the box of somebody nearer."""
    covered = np.zeros((film.height, film.width), bool)
    boxes = []
    for number, box in reversed(seen):
        left, top, right, bottom = (round(side) for side in box)
        inside = covered[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        boxes.append(TrueBox(number, box, float((~inside).sum()) / ((right - left) * (bottom - top))))
        inside[:] = True
    return boxes[::-1]


def _mot_line(frame: int, true: TrueBox) -> str:
    left, top, right, bottom = true.box
    box = f"{left:.1f},{top:.1f},{right - left:.1f},{bottom - top:.1f}"
    return f"{frame},{true.number},{box},{int(true.visible >= _COUNTED)},1,{true.visible:.2f}\n"
