"""Transitive closure of links (Fig. 2): connected components become identities."""

import numpy as np
from scipy import sparse


def groups(count: int, links: np.ndarray) -> np.ndarray:
    """Connected component `[count]` of each of `count` nodes under `links` `[l, 2]`, numbered by lowest member.

    Equals `reference.closure`.
    """
    ones = np.ones(len(links), bool)
    graph = sparse.coo_array((ones, (links[:, 0], links[:, 1])), shape=(count, count))
    return numbered(sparse.csgraph.connected_components(graph, directed=False)[1])


def numbered(labels: np.ndarray) -> np.ndarray:
    """Renumbers labels `[n]` to 0, 1, ... by first appearance, int64; negative labels become -1 (discarded)."""
    present, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    first = np.where(present < 0, -1, first)
    number = np.empty(len(present), np.int64)
    number[np.argsort(first)] = np.arange(len(present)) - np.count_nonzero(present < 0)
    return np.maximum(number[inverse], -1)
