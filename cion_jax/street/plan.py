"""Plans the shots of each population: person, camera and frames, before rendering."""

import dataclasses

import numpy as np

from cion_jax.samples import SampleTable
from cion_jax.street.config import StreetConfig
from cion_jax.street.randomness import Population, Stream, generator
from cion_jax.street.tracker import NOBODY, track_video


@dataclasses.dataclass(frozen=True)
class Shot:
    """Crops of one person (or of `NOBODY`) in one camera, rendered together."""

    population: Population
    key: int  # unique within the population
    camera: int
    person: int  # index within the population
    frames: tuple[int, ...]
    files: tuple[str, ...]  # relative to the population's folder


def plan_labelled(config: StreetConfig) -> tuple[list[Shot], SampleTable]:
    """Plans each labelled person in a few cameras. The table has `identity`; camera = video, shot = tracklet."""
    rng = generator(config, Population.LABELLED, Stream.PLAN)
    shots, rows = [], []
    for person in range(config.labelled_people):
        cameras = rng.choice(config.labelled_cameras, config.labelled_cameras_per_person, replace=False)
        for camera in np.sort(cameras).tolist():
            frames = _consecutive(config, rng, config.labelled_frames)
            files = tuple(f"p{person:05d}/c{camera:03d}_f{frame:06d}.jpg" for frame in frames)
            rows += [(file, f"c{camera:03d}", len(shots), frame, person) for file, frame in zip(files, frames)]
            shots.append(Shot(Population.LABELLED, len(shots), camera, person, frames, files))
    table = _table(rows)
    return shots, table.with_columns(identity=table["person"])


def plan_crawl(config: StreetConfig) -> tuple[list[Shot], SampleTable]:
    """Plans the tracker's output for every video. The table has no identities; `person` is for scoring only."""
    shots, rows = [], []
    for video in range(config.crawl_videos):
        seen: dict[tuple[int, int], list[tuple[int, str]]] = {}
        for number, tracklet in enumerate(track_video(config, video)):
            for frame, person in zip(tracklet.frames.tolist(), tracklet.people.tolist()):
                file = f"v{video:05d}/t{number:04d}_f{frame:06d}.jpg"
                rows.append((file, f"v{video:05d}", number, frame, _street_number(config, person)))
                # A person keeps walking across tracklets; each tracklet's boxes without a person have one fixed place.
                walker = (person, number if person == NOBODY else 0)
                seen.setdefault(walker, []).append((frame, file))
        for (person, _), crops in seen.items():
            frames, files = (tuple(items) for items in zip(*crops))
            shots.append(Shot(Population.CRAWL, len(shots), video, person, frames, files))
    return shots, _table(rows)


def plan_benchmark(config: StreetConfig) -> list[Shot]:
    """Plans query and gallery. A person's first crop in a camera is a query, the others are gallery."""
    rng = generator(config, Population.BENCHMARK, Stream.PLAN)
    shots: list[Shot] = []

    def add(name: str, camera: int, person: int, folders: list[str]) -> None:
        frames = _consecutive(config, rng, len(folders))
        # The last number makes the names of distractors unique, whose other parts may coincide.
        files = tuple(
            f"{folder}/{name}_c{camera + 1}s1_{frame:06d}_{len(shots):02d}.jpg"
            for folder, frame in zip(folders, frames)
        )
        shots.append(Shot(Population.BENCHMARK, len(shots), camera, person, frames, files))

    for person in range(config.benchmark_people):
        count = int(rng.integers(*config.benchmark_cameras_per_person, endpoint=True))
        for camera in np.sort(rng.choice(config.benchmark_cameras, count, replace=False)).tolist():
            crops = int(rng.integers(*config.benchmark_frames, endpoint=True))
            add(f"{person + 1:04d}", camera, person, ["query"] + ["bounding_box_test"] * crops)
    others = [("0000", config.benchmark_people + extra) for extra in range(config.benchmark_distractors)]
    for name, person in others + [("-1", NOBODY)] * config.benchmark_junk:
        add(name, int(rng.integers(config.benchmark_cameras)), person, ["bounding_box_test"])
    return shots


def _consecutive(config: StreetConfig, rng: np.random.Generator, count: int) -> tuple[int, ...]:
    """Returns the frame numbers of one walk past a camera."""
    start = int(rng.integers(1, 100_000))
    return tuple(start + config.frame_stride * index for index in range(count))


def _street_number(config: StreetConfig, person: int) -> int:
    """Numbers the crawl's people after the labelled ones, so that ids are unique across both populations."""
    return NOBODY if person == NOBODY else config.labelled_people + person


def _table(rows: list[tuple[str, str, int, int, int]]) -> SampleTable:
    file_path, video, tracklet, frame, person = (list(column) for column in zip(*rows))
    return SampleTable.from_columns(file_path=file_path, video=video, tracklet=tracklet, frame=frame, person=person)
