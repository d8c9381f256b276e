"""Chaining: a few wrong links merge many people into one identity.

Closure joins every two groups that a path of links connects. Where links are right, most of these pairs are close
enough to be linked themselves. Where they chain, most are not. This share of pairs that are links, the support,
distinguishes the two without labels, at any size of crawl, and needs neither a threshold nor a rate.
"""

import dataclasses

import numpy as np
from scipy import sparse

from cion_jax.correlation import closure, cross_video
from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.engine.linking import pair_distances
from cion_jax.correlation.engine.sharding import Track
from cion_jax.runtime.arrays import RowArray

LARGEST, WEAKEST = 5, 5  # identities that are reported, and links of each
IMPLAUSIBLE_SHARE, IMPLAUSIBLE_FACTOR = 0.02, 50
SUPPORTED = 0.5  # least share of the pairs that closure joins that are links themselves
THRESHOLDS = 100  # that are tried, evenly spaced below the largest


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


def unchained_threshold(
    groups: Groups, features: RowArray, half_width: int | None, ceiling: float, track: Track
) -> tuple[float, float]:
    """The largest threshold up to `ceiling` at which links do not chain.

        support(sigma) = |{(i, j) : dist(c_i, c_j) <= sigma}| / |{(i, j) : i ~ j}| >= SUPPORTED,   |i - j| <= r_s

        ~ transitive closure of the links at sigma,   c_i [d] centroid of group i,   r_s = half_width

    Args:
        groups: The groups that Eq. 7 would link, in sliding order.
        features: `[n, d]`, of their images.
        half_width: r_s, in groups; None compares every pair.
        ceiling: Cosine distance; the number of links at this threshold must fit into memory.
        track: Progress over the tiles of pairs.

    Returns:
        The threshold, 0 if links chain at every threshold tried, and its support.
    """
    links = cross_video.link(groups, features, half_width, ceiling, track)
    distances = pair_distances(groups.centroids, groups.centroids, links)
    order = np.argsort(distances, kind="stable")
    links, distances = links[order], distances[order]
    for sigma in np.linspace(ceiling, 0, THRESHOLDS, endpoint=False).round(4).tolist():
        linked = int(np.searchsorted(distances, sigma, side="right"))
        support = linked / max(_joined_pairs(len(groups.sums), links[:linked], half_width), 1)
        if support >= SUPPORTED or not linked:
            return sigma, support
    return 0.0, 0.0


def _joined_pairs(count: int, links: np.ndarray, half_width: int | None) -> int:
    """Number of pairs i < j of `count` groups, j - i <= `half_width`, that the closure of `links` joins."""
    component = closure.groups(count, links)
    reach = count if half_width is None else min(half_width, count)
    keys = np.sort(component * (count + reach + 1) + np.arange(count))  # components lie farther apart than the reach
    return int((np.searchsorted(keys, keys + reach, side="right") - np.arange(count) - 1).sum())
