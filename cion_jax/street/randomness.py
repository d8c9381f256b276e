"""Random numbers that depend on what they are for, not on when or in which process they are drawn."""

import enum

import numpy as np

from cion_jax.street.config import StreetConfig


class Population(enum.IntEnum):
    LABELLED = 0
    CRAWL = 1
    BENCHMARK = 2


class Stream(enum.IntEnum):
    """The purpose of a random number, used as its stream."""

    PERSON = 0
    CAMERA = 1
    WALK = 2
    SHOT = 3
    PLAN = 4
    FILM = 5


def generator(config: StreetConfig, population: int, stream: Stream, *key: int) -> np.random.Generator:
    """A generator of its own for each purpose: growing one population leaves the others as they were."""
    return np.random.default_rng((config.seed, int(population), int(stream), *key))
