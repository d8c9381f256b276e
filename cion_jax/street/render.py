"""Renders shots to crops."""

import dataclasses
import functools

import numpy as np

from cion_jax.street import raster
from cion_jax.street.camera import Camera, develop, make_camera
from cion_jax.street.config import StreetConfig
from cion_jax.street.figure import draw_person
from cion_jax.street.people import Person, make_person
from cion_jax.street.plan import Shot
from cion_jax.street.pose import Box, walk_pose
from cion_jax.street.randomness import Stream, generator
from cion_jax.street.tracker import NOBODY


@dataclasses.dataclass(frozen=True)
class Walk:
    """One person's walk past a camera, as a function of the frame, so that its fragments are consistent."""

    heading: float
    direction: int
    start: float
    phases: np.ndarray  # [4]

    def azimuth(self, tick: np.ndarray, turn: float) -> np.ndarray:
        return self.heading + turn * self._wander(tick, 0)

    def exposure(self, tick: np.ndarray, flicker: float) -> np.ndarray:
        return np.exp(flicker * self._wander(tick, 2))

    def _wander(self, tick: np.ndarray, first: int) -> np.ndarray:
        slow, fast = self.phases[first : first + 2]
        return 0.7 * np.sin(0.15 * tick + slow) + 0.3 * np.sin(0.47 * tick + fast)


def render_shot(config: StreetConfig, shot: Shot) -> np.ndarray:
    """Renders the crops of a shot, uint8 `[crops, height, width, 3]`."""
    camera = make_camera(config, shot.population, shot.camera)
    rng = generator(config, shot.population, Stream.SHOT, shot.key)
    tick = np.array(shot.frames) / config.frame_stride
    walk = _walk(config, camera, shot)
    place = _place(config, camera, shot, walk, tick, rng)
    canvas = _background(config, camera, place)
    if shot.person != NOBODY:
        person = _person(config, shot.population, shot.person)
        phase = walk.phases[0] + person.cadence * tick
        box = _box(config, len(tick), rng)
        pose = walk_pose(person, walk.azimuth(tick, config.turn), phase, camera.pitch, box)
        draw_person(canvas, person, pose, box, camera.light)
    draw_occluders(canvas, config, camera, place)
    return develop(canvas, camera, walk.exposure(tick, config.flicker), rng)


@functools.lru_cache(maxsize=1024)
def _person(config: StreetConfig, population: int, index: int) -> Person:
    return make_person(generator(config, population, Stream.PERSON, index))


def _walk(config: StreetConfig, camera: Camera, shot: Shot) -> Walk:
    who = (shot.person,) if shot.person != NOBODY else (shot.key, 1)
    rng = generator(config, shot.population, Stream.WALK, shot.camera, *who)
    direction = int(rng.choice((-1, 1)))
    heading = camera.view + (np.pi if direction < 0 else 0) + rng.normal(0, 0.3)
    return Walk(heading, direction, float(rng.uniform(0, 6)), rng.uniform(0, 2 * np.pi, 4))


def _place(
    config: StreetConfig, camera: Camera, shot: Shot, walk: Walk, tick: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns the crops' left edges along the plate, [crops], in pixels. Ghosts do not move."""
    scale = config.height
    if shot.person != NOBODY:
        moved = walk.direction * config.drift / 128 * tick
        return (walk.start + moved + rng.normal(0, config.box_jitter / 2, len(tick))) * scale
    at = walk.start
    if camera.occluders and rng.random() < 0.5:  # a pole or a bin is a plausible false detection
        at = camera.occluders[int(rng.integers(len(camera.occluders)))].x
    return (at + rng.normal(0, config.box_jitter, len(tick))) * scale - config.width / 2


def _background(config: StreetConfig, camera: Camera, place: np.ndarray) -> np.ndarray:
    """Returns the empty street behind each crop: a canvas `[3, crops, height, width]`."""
    top = (camera.plate.shape[1] - config.height) // 2
    rows = camera.plate[:, top : top + config.height]
    canvas = np.empty((3, len(place), config.height, config.width), np.float32)
    for crop, left in enumerate(np.floor(place % camera.around).astype(int)):
        canvas[:, crop] = rows[:, :, left : left + config.width]
    return canvas


def _box(config: StreetConfig, crops: int, rng: np.random.Generator) -> Box:
    """Returns the person's position in the crops, with the tracker's box jitter."""
    jitter = rng.normal(0, config.box_jitter, (3, crops))
    height = config.height * 0.88 * (1 + jitter[2])
    foot_y = config.height * (0.955 + 0.5 * jitter[1])
    return Box(config.width / 2 + config.height * 0.5 * jitter[0], foot_y, height, config.fill)


def draw_occluders(canvas: np.ndarray, config: StreetConfig, camera: Camera, place: np.ndarray) -> None:
    """Draws the occluders in front of the street; `place` [crops] are the images' left edges on the plate (pixels)."""
    around = camera.around
    for occluder in camera.occluders:
        x = (occluder.x * config.height - place + around / 2) % around - around / 2
        half = occluder.half_width * config.height
        if not np.any((x > -half) & (x < config.width + half)):
            continue
        top = np.stack([x, np.full_like(x, occluder.top * config.height)], 1).astype(np.float32)
        bottom = np.stack([x, np.full_like(x, config.height * 1.1)], 1).astype(np.float32)
        shape = raster.trapezoid(canvas, top, bottom, half, half, corner=2.0)
        raster.paint(canvas, shape, occluder.colour)
