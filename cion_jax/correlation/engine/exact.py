"""Final decisions: distances in float64, from the images themselves."""

import functools

import numpy as np

from cion_jax.correlation.engine.distances import SHORTEST_SUM, distance, exact_unit
from cion_jax.runtime.arrays import RowArray

_IMAGES_AT_ONCE = 2**13
_PAIRS_AT_ONCE = 2**12


class ExactCentroids:
    """Centroids of groups of images, computed in float64 on demand."""

    def __init__(self, features: RowArray, assigned: np.ndarray):
        """`features` `[n, d]` may be a memory map; `assigned` `[n]` is the group of each image, -1 = none."""
        self.features = features
        self._assigned = assigned

    @functools.cached_property
    def _by_group(self) -> tuple[np.ndarray, np.ndarray]:
        """All rows sorted by group, and their groups; most runs need no float64, and are spared the sorting."""
        rows = np.argsort(self._assigned, kind="stable")
        return rows, self._assigned[rows]

    def directions(self, groups: np.ndarray) -> np.ndarray:
        """Unit vectors `[k, d]` along the centroids of `groups` `[k]`."""
        sums = np.stack([self._sum(group) for group in groups])
        return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), SHORTEST_SUM)

    def images_of(self, group: int) -> np.ndarray:
        """The rows of the images of a group, ascending."""
        rows, groups = self._by_group
        first, last = np.searchsorted(groups, [group, group + 1])
        return rows[first:last]

    def _sum(self, group: int) -> np.ndarray:
        rows, total = self.images_of(group), np.zeros(self.features.shape[1])
        for start in range(0, len(rows), _IMAGES_AT_ONCE):
            total += exact_unit(self.features[rows[start : start + _IMAGES_AT_ONCE]]).sum(0)
        return total

    def distances(self, pairs: np.ndarray) -> np.ndarray:
        """Distances `[p]` between the centroids of `pairs` `[p, 2]` of groups."""
        blocks = [pairs[start : start + _PAIRS_AT_ONCE] for start in range(0, len(pairs), _PAIRS_AT_ONCE)]
        return np.concatenate([np.zeros(0), *(self._block(block[:, 0], block[:, 1]) for block in blocks)])

    def _block(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        groups, position = np.unique([left, right], return_inverse=True)
        directions = self.directions(groups)
        left, right = position.reshape(2, -1)
        return distance(np.einsum("pd,pd->p", directions[left], directions[right]))

    def distances_to(self, rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Distances `[p]` of the images in `rows` `[p]` to the centroids of `groups` `[p]`."""
        distances = np.empty(len(rows))
        for start in range(0, len(rows), _PAIRS_AT_ONCE):
            block = slice(start, start + _PAIRS_AT_ONCE)
            images = exact_unit(self.features[rows[block]])
            present, position = np.unique(groups[block], return_inverse=True)
            distances[block] = distance(np.einsum("pd,pd->p", images, self.directions(present)[position]))
        return distances
