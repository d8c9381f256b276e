"""Chaining: a few wrong links merge many people into one identity."""

import dataclasses

import numpy as np
from scipy import sparse

from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.engine.linking import pair_distances

LARGEST, WEAKEST = 5, 5  # identities that are reported, and links of each
IMPLAUSIBLE_SHARE, IMPLAUSIBLE_FACTOR = 0.02, 50


@dataclasses.dataclass(frozen=True)
class LargeIdentity:
    """One of the largest identities of a level.

    Attributes:
        row: Its first row.
        images: Number of images.
        groups: Number of groups of the previous level that were merged into it.
        weakest: The longest edges of the minimum spanning tree over its links, longest first, as (a, b, cosine
            distance) between identities of the previous level: without any of them it would split.
    """

    row: int
    images: int
    groups: int
    weakest: list[tuple[int, int, float]]


def largest_identities(before: Groups, links: np.ndarray, after: Groups, names: np.ndarray) -> list[LargeIdentity]:
    """The `LARGEST` identities after closure.

    Args:
        before: Groups before closure.
        links: `[l, 2]`, pairs of these groups.
        after: Groups after closure.
        names: `[groups]`, the identity of each group before closure.
    """
    group_after = np.full(len(before.sums), -1)
    present = before.assigned >= 0
    group_after[before.assigned[present]] = after.assigned[present]
    sizes = after.counts
    largest = []
    for group in np.argsort(-sizes, kind="stable")[:LARGEST].tolist():
        inside = links[(group_after[links] == group).all(1)]
        rows = np.flatnonzero(after.assigned == group)[:1]
        weakest = [(int(names[a]), int(names[b]), distance) for a, b, distance in _weakest(before, inside)]
        largest.append(LargeIdentity(int(rows[0]), int(sizes[group]), int((group_after == group).sum()), weakest))
    return largest


def _weakest(groups: Groups, links: np.ndarray) -> list[tuple[int, int, float]]:
    """The longest edges (group, group, cosine distance) of the minimum spanning tree over `links` `[l, 2]`."""
    if not len(links):
        return []
    nodes, position = np.unique(links, return_inverse=True)
    members = groups.centroids[nodes]
    pairs = position.reshape(-1, 2)
    distances = pair_distances(members, members, pairs) + np.float32(1e-6)  # in a sparse graph, 0 means no edge
    graph = sparse.coo_array((distances, (pairs[:, 0], pairs[:, 1])), shape=(len(nodes), len(nodes)))
    tree = sparse.csgraph.minimum_spanning_tree(graph.tocsr()).tocoo()
    order = np.argsort(-tree.data, kind="stable")[:WEAKEST]
    return [(int(nodes[tree.row[i]]), int(nodes[tree.col[i]]), round(float(tree.data[i]), 4)) for i in order]


def sizes(identities: np.ndarray) -> dict[str, float]:
    """Quantiles of the number of images per identity; `identities` `[n]`, -1 left out."""
    counts = np.bincount(identities[identities >= 0])
    quantiles = {"median": 0.5, "p90": 0.9, "p99": 0.99, "largest": 1.0}
    return {name: float(np.quantile(counts, q)) for name, q in quantiles.items()} if len(counts) else {}


def chaining_warning(identities: np.ndarray) -> str | None:
    """A warning if one identity has an implausibly large share of the images, else None; `identities` `[n]`."""
    counts = np.bincount(identities[identities >= 0])
    if not len(counts):
        return None
    share, factor = counts.max() / counts.sum(), counts.max() / np.median(counts)
    if share < IMPLAUSIBLE_SHARE or factor < IMPLAUSIBLE_FACTOR:
        return None
    return (
        f"one identity has {counts.max():,} images, {share:.0%} of all and {factor:.0f} times the median: links have "
        f"chained; lower sigma_drm, forbid covisible links, or look at its weakest links in the report"
    )
