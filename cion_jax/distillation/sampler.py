"""Samplers: the rows of a batch are a pure function of (seed, step), so there is no state to save."""

import abc
import functools
import threading

import numpy as np

from cion_jax.distillation.schedules import Curriculum, Stage


class Sampler(abc.ABC):
    """Rows of every batch: `sampler[step]` is `[groups, K]`, the rows of a group being of one identity.

    It is a pure function of the seed and the step, so that a run can continue anywhere. Devices take contiguous parts.
    An epoch is drawn as a whole when its first batch is asked for.
    """

    def __init__(self, plan: Curriculum, seed: int):
        self._plan, self._seed = plan, seed
        self._drawn, self._lock = functools.lru_cache(maxsize=2)(self._draw), threading.Lock()

    def __len__(self) -> int:
        return self._plan.total_steps

    def __getitem__(self, step: int) -> np.ndarray:
        epoch = self._plan.epoch(step)
        with self._lock:  # else every loader thread that reaches a new epoch would draw it
            batches = self._drawn(epoch)
        return batches[step - self._plan.first_step(epoch)]

    def _draw(self, epoch: int) -> np.ndarray:
        stage = self._plan.stage(self._plan.first_step(epoch))
        return self._draw_epoch(np.random.default_rng((self._seed, epoch)), stage)

    @abc.abstractmethod
    def _draw_epoch(self, rng: np.random.Generator, stage: Stage) -> np.ndarray:
        """Rows of all batches of an epoch of `stage`, `[steps_per_epoch, groups, K]`."""


class IdentitySampler(Sampler):
    """Sequence of batches, each made of whole groups of K images of one identity.

    In every epoch each identity's images are shuffled and cut into groups of K; a short last group is topped up
    from the same identity, without repeating an image where the identity has K. The groups are shuffled globally
    and dealt to the batches; those that do not fill a last batch are dropped from the epoch.

    A global batch does not depend on the number of devices or processes; each takes a contiguous part of it.
    """

    def __init__(self, identities: np.ndarray, curriculum: Curriculum, *, batch_size: int, seed: int):
        """
        Args:
            identities: int `[rows]`; rows with a negative identity are never drawn.
            curriculum: curriculum made from the sizes of the same identities.
            batch_size: images of a global batch.
            seed: random seed.
        """
        rows = np.flatnonzero(np.asarray(identities) >= 0)
        _, codes = np.unique(np.asarray(identities)[rows], return_inverse=True)
        self._rows, self._codes = rows, codes.astype(np.int32)
        self._sizes, self._batch_size = np.bincount(codes), batch_size
        super().__init__(curriculum, seed)

    def _draw_epoch(self, rng: np.random.Generator, stage: Stage) -> np.ndarray:
        k = stage.images_per_identity
        shuffled = rng.permutation(len(self._rows))
        by_identity = shuffled[np.argsort(self._codes[shuffled], kind="stable")]
        starts = np.cumsum(self._sizes) - self._sizes
        counts = -(-self._sizes // k)
        owner = np.repeat(np.arange(len(counts)), counts)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        position = number[:, None] * k + np.arange(k)
        position %= self._sizes[owner, None]  # a short last group is topped up from the identity's first images
        groups = self._rows[by_identity[starts[owner, None] + position]]
        dealt = stage.steps_per_epoch * (self._batch_size // k)
        return groups[rng.permutation(len(groups))[:dealt]].reshape(stage.steps_per_epoch, -1, k)


def identity_sizes(identities: np.ndarray) -> np.ndarray:
    """Number of images of each identity that training may draw, `[identities]`, for `make_curriculum`."""
    identities = np.asarray(identities)
    return np.unique(identities[identities >= 0], return_counts=True)[1]
