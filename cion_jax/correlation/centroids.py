"""Groups of images, and the centroids by which they are compared."""

import dataclasses
import functools
from typing import Any

import numpy as np

from cion_jax.correlation import rounding
from cion_jax.correlation.closure import groups
from cion_jax.correlation.distances import directions, squared_lengths, sums_by_label
from cion_jax.correlation.exact import ExactCentroids


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Unit vectors `[k, d]` in float32, and `slack` `[k]`: their shares in the error of a distance."""

    directions: Any
    slack: Any

    def __len__(self) -> int:
        return len(self.directions)

    def __getitem__(self, rows: np.ndarray) -> "Vectors":
        return Vectors(self.directions[rows], self.slack[rows])


@dataclasses.dataclass(frozen=True)
class Groups:
    """The group of each image `[n]`, -1 = none, and the sums `[groups, d]` of the unit features in each."""

    assigned: np.ndarray
    sums: np.ndarray

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """How many images each group has, `[groups]`."""
        return np.bincount(self.assigned[self.assigned >= 0], minlength=len(self.sums))

    @functools.cached_property
    def centroids(self) -> Vectors:
        """The centroids of the groups."""
        lengths = np.sqrt(squared_lengths(self.sums))
        slack = rounding.centroid_slack(self.counts, lengths, self.sums.shape[1])
        return Vectors(directions(self.sums), slack)

    def exactly(self, features: np.ndarray) -> ExactCentroids:
        """The same centroids in float64, from the images."""
        return ExactCentroids(features, self.assigned)

    def merged(self, links: np.ndarray, *, final: bool = False) -> "Groups":
        """Groups after transitive closure of `links` `[l, 2]`, numbered by their lowest member.

        Sums of `final` groups, which nothing is compared with any more, are left out (`[groups, 0]`).
        """
        group = groups(len(self.sums), links)
        count = group.max() + 1
        sums = np.empty((count, 0), np.float32) if final else sums_by_label(group, self.sums, count)
        return Groups(np.where(self.assigned >= 0, group[self.assigned], -1), sums)
