"""The state of a correlation before its last closure, which suffices to add and remove images."""

import dataclasses

import numpy as np

from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.levels import Correlation, LevelResult


@dataclasses.dataclass(frozen=True)
class State:
    """Groups after Eq. 6 in sliding order, and their links by Eq. 7.

    Attributes:
        groups: The groups.
        links: `[links, 2]`, pairs i < j of groups.
        places: `[groups]`, ascending: the place of each in the sliding order in which the links were found.
    """

    groups: Groups
    links: np.ndarray
    places: np.ndarray

    @staticmethod
    def after(correlation: Correlation) -> "State":
        """The state after a run of `correlate` to level 3."""
        before, last = correlation.levels[2:]
        groups = groups_of(before)
        # Links of level 3 name identities of level 2, which are numbered by first row, not in sliding order.
        first = np.unique(groups.assigned, return_index=True)[1][-len(groups.sums) :]
        group = np.empty(len(groups.sums), np.int64)
        group[before.identities[first]] = np.arange(len(group))
        return State(groups, np.sort(group[last.links], axis=1).astype(np.int32), np.arange(len(group)))

    def without(self, removed: np.ndarray) -> "State":
        """The state without the images in the mask `removed` `[n]`, which are all images of some videos.

        Eq. 4-6 process each video by itself, so all other groups are unchanged.
        """
        assigned = self.groups.assigned[~removed]
        if not removed.any():
            return self
        present = np.zeros(len(self.groups.sums), bool)
        present[assigned[assigned >= 0]] = True
        number = np.cumsum(present, dtype=np.int32) - 1
        links = self.links[present[self.links].all(1)]
        groups = Groups(np.where(assigned >= 0, number[assigned], -1), self.groups.sums[present])
        return State(groups, number[links].astype(np.int32), self.places[present])

    def extended(self, added: Groups) -> Groups:
        """These groups followed by those of `added` images, whose rows follow too."""
        assigned = np.where(added.assigned >= 0, added.assigned + len(self.groups.sums), -1)
        sums = np.concatenate([self.groups.sums, added.sums])
        return Groups(np.concatenate([self.groups.assigned, assigned]), sums)


def groups_of(level: LevelResult) -> Groups:
    """The groups after Eq. 6, from the result of level 2."""
    assert level.groups is not None
    return level.groups
