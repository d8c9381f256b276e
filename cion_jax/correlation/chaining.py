"""Chaining: links that are wrong now and then tie many people together into one identity."""

import dataclasses

import numpy as np
from scipy import sparse

from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.engine.linking import pair_distances

LARGEST, WEAKEST = 5, 5  # how many identities are looked at, and how many links of each
IMPLAUSIBLE_SHARE, IMPLAUSIBLE_FACTOR = 0.02, 50


@dataclasses.dataclass(frozen=True)
class LargeIdentity:
    """One of the largest identities of a level: its first row, its images and the groups that were joined.

    weakest: links (a, b, distance) between identities of the level before, without which it would fall apart: the
             longest of its minimum spanning tree, longest first.
    """

    row: int
    images: int
    groups: int
    weakest: list[tuple[int, int, float]]


def largest_identities(before: Groups, links: np.ndarray, after: Groups, names: np.ndarray) -> list[LargeIdentity]:
    """The largest identities that `links` `[l, 2]` made of the groups `before`, which are called `names`."""
    group_after = np.full(len(before.sums), -1)
    present = before.assigned >= 0
    group_after[before.assigned[present]] = after.assigned[present]
    sizes = after.counts
    found = []
    for group in np.argsort(-sizes, kind="stable")[:LARGEST].tolist():
        inside = links[group_after[links[:, 0]] == group] if len(links) else links
        rows = np.flatnonzero(after.assigned == group)[:1]
        weakest = [(int(names[a]), int(names[b]), away) for a, b, away in _weakest(before, inside)]
        found.append(LargeIdentity(int(rows[0]), int(sizes[group]), int((group_after == group).sum()), weakest))
    return found


def _weakest(groups: Groups, links: np.ndarray) -> list[tuple[int, int, float]]:
    if not len(links):
        return []
    nodes, position = np.unique(links, return_inverse=True)
    members = groups.centroids[nodes]
    pairs = position.reshape(-1, 2)
    away = pair_distances(members, members, pairs) + np.float32(1e-6)  # a sparse graph has no edge of length 0
    graph = sparse.coo_array((away, (pairs[:, 0], pairs[:, 1])), shape=(len(nodes), len(nodes)))
    tree = sparse.csgraph.minimum_spanning_tree(graph.tocsr()).tocoo()
    order = np.argsort(-tree.data, kind="stable")[:WEAKEST]
    return [(int(nodes[tree.row[i]]), int(nodes[tree.col[i]]), round(float(tree.data[i]), 4)) for i in order]


def sizes(identities: np.ndarray) -> dict[str, float]:
    """Quantiles of the number of images per identity in `identities` `[n]`; -1 is left out."""
    counts = np.bincount(identities[identities >= 0])
    quantiles = {"median": 0.5, "p90": 0.9, "p99": 0.99, "largest": 1.0}
    return {name: float(np.quantile(counts, q)) for name, q in quantiles.items()} if len(counts) else {}


def chaining_warning(identities: np.ndarray) -> str | None:
    """A warning where one identity has an implausible share of all images, else None."""
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
