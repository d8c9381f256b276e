"""PK sampler: batches of P identities with K images of each, as a pure function of (seed, step)."""

import numpy as np

from cion_jax.distillation.sampler import Sampler
from cion_jax.distillation.schedules import Curriculum, Stage, whole_identities


class PKSampler(Sampler):
    """Sequence of batches of P different identities with K images each.

    In every epoch the images of an identity are shuffled and cut into groups of K. A remainder is dropped; an identity
    with fewer than K images gives one group, drawn with replacement. The identities are put in random order, and their
    groups are dealt to the epoch's batches in turn, so that an identity is in a batch at most once. Identities that are
    left when all batches are full are dropped from the epoch, others in every epoch.

    The released sampler draws the P identities of each batch from those with groups left and stops when fewer than P
    have any, so its number of batches varies from epoch to epoch. Here it is the largest number for which P identities
    can always be found.
    """

    def __init__(self, labels: np.ndarray, plan: Curriculum, *, batch_size: int, seed: int):
        """
        Args:
            labels: int `[rows]`; rows with a negative label are never drawn.
            plan: plan from `plan_epochs` with the same labels and batch size.
            batch_size: images of a global batch, P times K.
            seed: random seed.
        """
        self._rows = np.flatnonzero(labels >= 0)
        _, codes, self._sizes = np.unique(labels[self._rows], return_inverse=True, return_counts=True)
        self._codes = codes.astype(np.int32)
        self._k = plan.stages[0].images_per_identity
        self._identities = batch_size // self._k
        super().__init__(plan, seed)

    def _draw_epoch(self, rng: np.random.Generator, stage: Stage) -> np.ndarray:
        """Rows of all batches of an epoch, `[batches, P, K]`."""
        batches = stage.steps_per_epoch
        owner, number = self._dealt(rng, batches)
        shuffled = rng.permutation(len(self._rows))
        by_identity = shuffled[np.argsort(self._codes[shuffled], kind="stable")]
        starts, sizes = (np.cumsum(self._sizes) - self._sizes)[owner, None], self._sizes[owner, None]
        position = number[:, None] * self._k + np.arange(self._k)
        drawn = rng.integers(sizes, size=position.shape)  # with replacement, for identities with fewer than K
        rows = self._rows[by_identity[starts + np.where(sizes < self._k, drawn, position)]]
        return rows.reshape(self._identities, batches, self._k).swapaxes(0, 1)[rng.permutation(batches)]

    def _dealt(self, rng: np.random.Generator, batches: int) -> tuple[np.ndarray, np.ndarray]:
        """Identity, and number among that identity's groups, of the j-th group dealt; it goes to batch j mod batches.

        The groups of an identity follow each other and are at most as many as the batches, so no batch gets two.
        """
        order = rng.permutation(len(self._sizes))
        counts = np.minimum(groups_of(self._sizes, self._k), batches)[order]
        owner = np.repeat(order, counts)[: self._identities * batches]
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return owner, number[: self._identities * batches]


def groups_of(sizes: np.ndarray, k: int) -> np.ndarray:
    """The number of groups of K images that identities of these sizes give in an epoch, at least one."""
    return np.maximum(sizes // k, 1)


def plan_epochs(
    labels: np.ndarray, *, batch_size: int, images_per_identity: int, epochs: int, devices: int
) -> Curriculum:
    """The plan of `epochs` epochs with as many batches of P different identities as the labels give.

    Raises:
        ValueError: a batch that devices cannot share by whole identities, no identity with two images, or fewer
            identities than a batch needs.
    """
    k = images_per_identity
    if k < 2 or epochs < 1:
        raise ValueError(f"{k} images per identity for {epochs} epochs: give at least 2 images, and 1 epoch")
    whole_identities(batch_size, [k], devices=devices)
    sizes = np.unique(labels[labels >= 0], return_counts=True)[1]
    if not len(sizes) or sizes.max() < 2:
        raise ValueError(
            f"none of the {len(sizes)} identities has two images: the triplet loss has no positives; check the "
            f"identities of the training table"
        )
    if len(sizes) < batch_size // k:
        raise ValueError(
            f"a batch of {batch_size} images, {k} of each identity, needs {batch_size // k} identities, and the "
            f"training table has {len(sizes)}; give a batch size of at most {len(sizes) // devices * devices * k}, or "
            f"more images per identity"
        )
    steps = _batches(groups_of(sizes, k), batch_size // k)
    return Curriculum((Stage(k, 0, epochs, 0, steps),))


def _batches(groups: np.ndarray, identities: int) -> int:
    """The largest T for which T batches of different identities exist: sum_i min(groups_i, T) >= identities T."""
    count = 1
    while np.minimum(groups, count + 1).sum() >= identities * (count + 1):
        count += 1
    return count
