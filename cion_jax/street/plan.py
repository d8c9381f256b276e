"""Decides who is seen where and when, before a pixel is drawn."""

import dataclasses

import numpy as np

from cion_jax.samples import SampleTable
from cion_jax.street.config import StreetConfig
from cion_jax.street.randomness import Population, Stream, generator
from cion_jax.street.tracker import NOBODY, track_video


@dataclasses.dataclass(frozen=True)
class Shot:
    """Crops of one person (or of `NOBODY`) in front of one camera; drawn together."""

    population: Population
    key: int  # tells the shots of a population apart
    camera: int
    person: int
    frames: tuple[int, ...]
    files: tuple[str, ...]  # relative to the population's folder


def plan_labelled(config: StreetConfig) -> tuple[list[Shot], SampleTable]:
    """Everybody in a few cameras: the shots, and the table (identity, video = camera, one tracklet a shot)."""
    rng = generator(config, Population.LABELLED, Stream.PLAN)
    shots = []
    for person in range(config.labelled_people):
        cameras = rng.choice(config.labelled_cameras, config.labelled_cameras_per_person, replace=False)
        for camera in np.sort(cameras).tolist():
            frames = _run_of_frames(config, rng, config.labelled_frames)
            files = tuple(f"p{person:05d}/c{camera:02d}_f{frame:06d}.jpg" for frame in frames)
            shots.append(Shot(Population.LABELLED, len(shots), camera, person, frames, files))
    rows = [
        (file, f"c{shot.camera:02d}", shot.key, frame, shot.person)
        for shot in shots
        for frame, file in zip(shot.frames, shot.files, strict=True)
    ]
    file_path, video, tracklet, frame, identity = zip(*rows, strict=True)
    table = SampleTable.from_columns(
        file_path=list(file_path),
        video=list(video),
        tracklet=np.array(tracklet, np.int64),
        frame=np.array(frame, np.int64),
        identity=np.array(identity, np.int64),
        person=np.array(identity, np.int64),
    )
    return shots, table


def plan_crawl(config: StreetConfig) -> tuple[list[Shot], SampleTable]:
    """What the tracker makes of every video: the shots, and the table (no identities; `person` only to score)."""
    shots: list[Shot] = []
    rows = []
    for video in range(config.crawl_videos):
        for number, tracklet in enumerate(track_video(config, video)):
            files = [f"v{video:05d}/t{number:04d}_f{frame:06d}.jpg" for frame in tracklet.frames]
            for run in _runs(tracklet.people):
                person = int(tracklet.people[run.start])
                frames = tuple(tracklet.frames[run].tolist())
                shots.append(Shot(Population.CRAWL, len(shots), video, person, frames, tuple(files[run])))
            rows += [
                (file, f"v{video:05d}", number, frame, person)
                for file, frame, person in zip(files, tracklet.frames, tracklet.people, strict=True)
            ]
    file_path, video, tracklet, frame, person = zip(*rows, strict=True)
    person = np.array(person, np.int64)
    table = SampleTable.from_columns(
        file_path=list(file_path),
        video=list(video),
        tracklet=np.array(tracklet, np.int64),
        frame=np.array(frame, np.int64),
        # Numbered after the labelled people: a number means one person in the whole street.
        person=np.where(person == NOBODY, NOBODY, person + config.labelled_people),
    )
    return shots, table


def plan_benchmark(config: StreetConfig) -> list[Shot]:
    """Query and gallery. The first crop of a person in a camera is a query, the others are gallery."""
    rng = generator(config, Population.BENCHMARK, Stream.PLAN)
    shots: list[Shot] = []

    def add(name: str, camera: int, person: int, queries: int, crops: int) -> None:
        frames = _run_of_frames(config, rng, crops)
        folders = ["query"] * queries + ["bounding_box_test"] * (crops - queries)
        files = tuple(
            f"{folder}/{name}_c{camera + 1}s1_{frame:06d}_{len(shots) % 100:02d}.jpg"
            for folder, frame in zip(folders, frames, strict=True)
        )
        shots.append(Shot(Population.BENCHMARK, len(shots), camera, person, frames, files))

    for person in range(config.benchmark_people):
        count = int(rng.integers(*config.benchmark_cameras_per_person, endpoint=True))
        for camera in np.sort(rng.choice(config.benchmark_cameras, count, replace=False)).tolist():
            crops = 1 + int(rng.integers(*config.benchmark_frames, endpoint=True))
            add(f"{person + 1:04d}", camera, person, 1, crops)
    for extra in range(config.benchmark_distractors):
        add("0000", int(rng.integers(config.benchmark_cameras)), config.benchmark_people + extra, 0, 1)
    for _ in range(config.benchmark_junk):
        add("-1", int(rng.integers(config.benchmark_cameras)), NOBODY, 0, 1)
    return shots


def _run_of_frames(config: StreetConfig, rng: np.random.Generator, count: int) -> tuple[int, ...]:
    start = int(rng.integers(1, 100_000))
    return tuple((start + config.frame_stride * np.arange(count)).tolist())


def _runs(people: np.ndarray) -> list[slice]:
    """Stretches of one and the same person."""
    edges = np.flatnonzero(np.diff(people)) + 1
    return [slice(*ends) for ends in zip([0, *edges.tolist()], [*edges.tolist(), len(people)], strict=True)]
