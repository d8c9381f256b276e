"""The identity sampler: the batch of a step is a pure function of (seed, step), with no state to save."""

import functools
import threading

import numpy as np

from cion_jax.distillation.schedules import Curriculum


class IdentitySampler:
    """Batches of whole identity groups.

    In every epoch each identity's images are shuffled and cut into groups of K; a short last group is topped up
    from the same identity, without repeating an image where the identity has K. The groups are shuffled globally
    and dealt to the batches; those that don't fill a last batch are left out of the epoch.

    The order of a batch does not depend on devices or processes: each takes its own contiguous part of it.
    """

    def __init__(self, identities: np.ndarray, curriculum: Curriculum, *, batch_size: int, seed: int):
        """
        Args:
            identities: int `[rows]`; rows with a negative identity are never drawn.
            curriculum: made from the sizes of the same identities.
            batch_size: images of a global batch.
            seed: of every draw.
        """
        rows = np.flatnonzero(np.asarray(identities) >= 0)
        _, codes = np.unique(np.asarray(identities)[rows], return_inverse=True)
        self._rows, self._codes = rows, codes.astype(np.int32)
        self._sizes = np.bincount(codes)
        self._curriculum, self._batch_size, self._seed = curriculum, batch_size, seed
        self._drawn, self._lock = functools.lru_cache(maxsize=2)(self._draw_epoch), threading.Lock()

    def __len__(self) -> int:
        return self._curriculum.total_steps

    def __getitem__(self, step: int) -> np.ndarray:
        """Rows `[groups, K]` of the global batch of `step`; a group holds images of one identity."""
        stage = self._curriculum.stage(step)
        groups = self._batch_size // stage.images_per_identity
        first = (step - stage.first_step) % stage.steps_per_epoch * groups
        return self._epoch_groups(self._curriculum.epoch(step))[first : first + groups]

    def _epoch_groups(self, epoch: int) -> np.ndarray:
        with self._lock:  # threads of the loader that come to a new epoch together would each draw all of it
            return self._drawn(epoch)

    def _draw_epoch(self, epoch: int) -> np.ndarray:
        """All groups of an epoch in their order, `[groups, K]`."""
        k = self._curriculum.stage(self._curriculum.first_step(epoch)).images_per_identity
        rng = np.random.default_rng((self._seed, epoch))
        shuffled = rng.permutation(len(self._rows))
        by_identity = shuffled[np.argsort(self._codes[shuffled], kind="stable")]
        starts = np.cumsum(self._sizes) - self._sizes
        counts = -(-self._sizes // k)
        owner = np.repeat(np.arange(len(counts)), counts)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        position = number[:, None] * k + np.arange(k)
        position %= self._sizes[owner, None]  # past the end: from the identity's start, another group's images
        groups = self._rows[by_identity[starts[owner, None] + position]]
        return groups[rng.permutation(len(groups))]


def identity_sizes(identities: np.ndarray) -> np.ndarray:
    """Images of each identity that training may draw, for `make_curriculum`."""
    identities = np.asarray(identities)
    return np.unique(identities[identities >= 0], return_counts=True)[1]
