"""Random numbers that depend only on their purpose, not on the order or process in which they are drawn."""

import enum

import numpy as np

from cion_jax.street.config import StreetConfig


class Population(enum.IntEnum):
    LABELLED = 0
    CRAWL = 1
    BENCHMARK = 2


class Stream(enum.IntEnum):
    """Purpose of a random number stream."""

    PERSON = 0
    CAMERA = 1
    WALK = 2
    SHOT = 3
    PLAN = 4
    FILM = 5


def generator(config: StreetConfig, population: int, stream: Stream, *key: int) -> np.random.Generator:
    """Returns a separate generator for each purpose, so that enlarging one population leaves the others unchanged."""
    return np.random.default_rng((config.seed, int(population), int(stream), *key))
