"""Paths of the people who walk through a full-frame video."""

import dataclasses

import numpy as np

from cion_jax.street.camera import PLATE_LENGTH, Camera
from cion_jax.street.config import StreetConfig
from cion_jax.street.people import Person, make_person
from cion_jax.street.pose import Box, Pose, walk_pose
from cion_jax.street.randomness import Population, Stream, generator

_HEIGHTS_PER_SECOND = 0.8  # walking speed, in body heights per second
_TICKS_PER_SECOND = 5  # time base of `Person.cadence`


@dataclasses.dataclass(frozen=True)
class FilmConfig:
    """Settings of the full-frame videos of a street.

    Attributes:
        height, width: Frame size, in pixels.
        rate: Frames per second.
        seconds: Length of a video; 0 for as long as everybody takes to pass, `StreetConfig.co_visible` at a time.
        far, near: Height of people at the far and the near edge of the pavement, in frame heights.
    """

    height: int = 360
    width: int = 640
    rate: int = 10
    seconds: float = 0.0
    far: float = 0.36
    near: float = 0.56

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 16 or self.height % 2 or self.width % 2:
            raise ValueError(f"film: frames of {self.height}x{self.width}; expected even numbers from 16 on")
        if self.width >= PLATE_LENGTH * self.height:
            raise ValueError(
                f"film: frames of {self.height}x{self.width}; expected less than {PLATE_LENGTH} times as wide as high"
            )
        if self.rate < 1 or self.seconds < 0 or not 0 < self.far <= self.near <= 1:
            raise ValueError(
                f"film: rate={self.rate}, seconds={self.seconds}, far={self.far}, near={self.near}; "
                "expected a rate of at least 1, no negative time, and 0 < far <= near <= 1"
            )


@dataclasses.dataclass(frozen=True)
class Passage:
    """One person's walk across the frame, at constant speed."""

    number: int  # person id on the street
    person: Person
    enters: float  # seconds
    direction: int  # 1: to the right, -1: to the left
    foot_y: float  # pixels
    height: float  # pixels
    heading: float  # azimuth in radians, as in `Pose`
    wander: np.ndarray  # [3] phases: of the steps and of two slow turns

    def foot_x(self, film: FilmConfig, seconds: float) -> float:
        way = _HEIGHTS_PER_SECOND * self.height * (seconds - self.enters) - self.height / 2
        return way if self.direction > 0 else film.width - way

    def crossing(self, film: FilmConfig) -> float:
        """Returns the time to cross the frame from edge to edge, in seconds."""
        return (film.width + self.height) / (_HEIGHTS_PER_SECOND * self.height)

    def is_seen(self, film: FilmConfig, seconds: float) -> bool:
        return self.enters <= seconds <= self.enters + self.crossing(film)

    def pose(self, config: StreetConfig, film: FilmConfig, camera: Camera, seconds: float) -> tuple[Pose, Box]:
        """Returns the person's pose and position in the frame at time `seconds`."""
        tick = np.array([_TICKS_PER_SECOND * seconds])
        turned = 0.7 * np.sin(0.15 * tick + self.wander[1]) + 0.3 * np.sin(0.47 * tick + self.wander[2])
        feet = np.array([[self.foot_x(film, seconds)], [self.foot_y], [self.height]])
        box = Box(*feet, stretch=1.0)
        phase = self.wander[0] + self.person.cadence * tick
        return walk_pose(self.person, self.heading + config.turn * turned, phase, camera.pitch, box), box


def plan_video(config: StreetConfig, film: FilmConfig, video: int) -> tuple[float, list[Passage]]:
    """Returns a crawl video's length in seconds and one passage per person, farthest first (the drawing order)."""
    rng = generator(config, Population.CRAWL, Stream.FILM, video)
    people = rng.choice(config.crawl_people, config.people_per_video, replace=False).tolist()
    askew = float(rng.uniform(-0.5, 0.5))  # radians: the street is not quite parallel to the image plane
    passages = [_passage(config, film, rng, person, askew) for person in people]
    crossings = np.array([passage.crossing(film) for passage in passages])
    seconds = film.seconds or float(crossings.sum()) / config.co_visible
    # Some people are already in view when the video begins, and some still are when it ends.
    starts = rng.uniform(-crossings / 2, seconds - crossings / 2).tolist()
    passages = [dataclasses.replace(passage, enters=start) for passage, start in zip(passages, starts)]
    return seconds, sorted(passages, key=lambda passage: passage.foot_y)


def _passage(config: StreetConfig, film: FilmConfig, rng: np.random.Generator, number: int, askew: float) -> Passage:
    depth = float(rng.uniform(0, 1))
    direction = int(rng.choice((-1, 1)))
    person = make_person(generator(config, Population.CRAWL, Stream.PERSON, number))
    return Passage(
        number=config.labelled_people + number,
        person=person,
        enters=0.0,
        direction=direction,
        foot_y=film.height * (0.74 + 0.23 * depth),
        height=film.height * (film.far + (film.near - film.far) * depth) * float(rng.uniform(0.93, 1.07)),
        heading=direction * np.pi / 2 + askew,
        wander=rng.uniform(0, 2 * np.pi, 3),
    )
