"""Groups of images, and the centroids by which they are compared."""

import dataclasses
import functools

import numpy as np

from cion_jax.correlation.engine import rounding
from cion_jax.correlation.engine.distances import SHORTEST_SUM, add_rows, merge_rows, squared_lengths
from cion_jax.correlation.engine.exact import ExactCentroids
from cion_jax.runtime.arrays import RowArray


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Vectors `[k, d]` in float32 that are compared by direction.

    They are stored unnormalised, since a copy costs more than the comparison: `scale` `[k]` makes each a unit vector.
    `slack` `[k]` is the contribution of each to the error bound of a distance.
    """

    rows: np.ndarray
    scale: np.ndarray
    slack: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray | slice) -> "Vectors":
        return Vectors(self.rows[rows], self.scale[rows], self.slack[rows])

    @staticmethod
    def of_images(units: np.ndarray) -> "Vectors":
        """Images `[k, d]`, already normalised in float32."""
        slack = rounding.image_slack(units.shape[1])
        return Vectors(units, *(np.full(len(units), value, np.float32) for value in (1, slack)))

    def directions(self, rows: np.ndarray | slice) -> np.ndarray:
        """Unit vectors along some of them, `[r, d]`."""
        return self.rows[rows] * self.scale[rows, None]


@dataclasses.dataclass(frozen=True)
class Groups:
    """The group of each image `[n]` int32, -1 = none, and the sums `[groups, d]` of the unit features in each."""

    assigned: np.ndarray
    sums: np.ndarray

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Number of images of each group, `[groups]`."""
        return np.bincount(self.assigned[self.assigned >= 0], minlength=len(self.sums))

    @functools.cached_property
    def centroids(self) -> Vectors:
        """The centroids of the groups."""
        lengths = np.sqrt(squared_lengths(self.sums))
        slack = rounding.centroid_slack(self.counts, lengths, self.sums.shape[1])
        return Vectors(self.sums, 1 / np.maximum(lengths, np.float32(SHORTEST_SUM)), slack)

    def exactly(self, features: RowArray) -> ExactCentroids:
        """The same centroids in float64, from the images."""
        return ExactCentroids(features, self.assigned)

    def joined(self, images: np.ndarray, units: np.ndarray, group: np.ndarray) -> "Groups":
        """The groups when the `images` `[m]`, unit features `units` `[m, d]`, have joined the ones in `group` `[m]`.

        Takes over the sums of these groups, whose centroids must not be used afterwards.
        """
        assigned = self.assigned.copy()
        assigned[images] = group
        add_rows(self.sums, group, units)
        return Groups(assigned, self.sums)

    def merged(self, group: np.ndarray, *, final: bool = False) -> "Groups":
        """Larger groups: `group` `[groups]` is the one that each of these becomes a part of, numbered by lowest member.

        Sums of `final` groups, which are not compared any more, are left out (`[groups, 0]`). Otherwise takes over the
        sums of these groups, whose centroids must not be used afterwards.
        """
        sums = np.empty((group.max() + 1, 0), np.float32) if final else merge_rows(self.sums, group)
        return Groups(np.append(group, -1).astype(np.int32)[self.assigned], sums)  # -1 reads the last
