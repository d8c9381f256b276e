"""Rules by which links become identities: the paper's transitive closure, and stricter ones that chain less.

All work on the sparse graph of links within sigma_drm, whose nodes are groups; pairs that are not linked play no role.

    closure      connected components (Fig. 2): the paper's rule, and the default
    constrained  closure, but no identity has two groups that share a frame, since these show two people
    mutual       closure of the links between groups that are among each other's `neighbors` nearest
    hdbscan      clusters of HDBSCAN* (Campello et al., 2013), as scikit-learn computes it, of each component
"""

from collections.abc import Iterable

import numpy as np
from scipy import sparse
from sklearn.cluster import HDBSCAN

from cion_jax.correlation import closure
from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.engine.distances import TIE
from cion_jax.runtime.arrays import RowArray

RULES = ("closure", "constrained", "mutual", "hdbscan")
NEIGHBORS = 5


def check_rule(rule: str, neighbors: int, frames_known: bool) -> None:
    """Raises ValueError for a rule that is unknown or lacks what it needs."""
    if rule not in RULES:
        raise ValueError(f"rule={rule!r}: expected one of {', '.join(RULES)}")
    if neighbors < 1:
        raise ValueError(f"neighbors={neighbors}: expected at least 1")
    if rule == "constrained" and not frames_known:
        raise ValueError("rule=constrained needs to know the frame of each image; add a column frame")


def identities(
    rule: str, groups: Groups, links: np.ndarray, features: RowArray, frame_ids: np.ndarray | None, neighbors: int
) -> np.ndarray:
    """The identity `[groups]` of each group by a rule, numbered by lowest member.

    Args:
        rule: One of `RULES`.
        groups: Groups of images.
        links: `[l, 2]`, pairs of groups within sigma_drm.
        features: `[n, d]`, of the images.
        frame_ids: `[n]`, as `covisible.number_frames` gives them, for "constrained".
        neighbors: For "mutual".
    """
    count = len(groups.sums)
    if rule == "closure":
        return closure.groups(count, links)
    distances = groups.exactly(features).distances(links)
    if rule == "constrained":
        assert frame_ids is not None
        known = (groups.assigned >= 0) & (frame_ids >= 0)
        return constrained(count, links, distances, np.stack([groups.assigned[known], frame_ids[known]], 1))
    if rule == "mutual":
        return closure.groups(count, links[mutual(count, links, distances, neighbors)])
    return hdbscan(count, links, distances)


def constrained(count: int, links: np.ndarray, distances: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Closure of links that never joins two groups that share a frame; identities `[count]`.

    Links are taken from the shortest on (of equally long ones, in order), and one that would join two such groups, even
    through others, is left out. So of a path between them only the longest link is cut.

    Args:
        count: Number of groups.
        links: `[l, 2]`, pairs of groups.
        distances: `[l]`.
        frames: `[m, 2]`, pairs of a group and a frame in which it has an image.
    """
    frames = np.unique(frames, axis=0)
    component = closure.groups(count, links)
    seen, times = np.unique(np.stack([component[frames[:, 0]], frames[:, 1]]), axis=1, return_counts=True)
    in_conflict = np.isin(component, seen[0, times > 1])
    open_links = np.flatnonzero(in_conflict[links[:, 0]])
    order = open_links[np.argsort(np.round(distances[open_links] / TIE), kind="stable")]
    seen_in = dict.fromkeys(np.flatnonzero(in_conflict).tolist())
    seen_in = {group: set() for group in seen_in} | _sets(frames[in_conflict[frames[:, 0]]])
    joined = [link for link, taken in zip(order, _join(links[order].tolist(), seen_in)) if taken]
    kept = np.concatenate([np.flatnonzero(~in_conflict[links[:, 0]]), np.array(joined, np.int64)])
    return closure.groups(count, links[kept])


def _sets(frames: np.ndarray) -> dict[int, set[int]]:
    """The frames of each group, from pairs `[m, 2]` in order of groups."""
    present, first = np.unique(frames[:, 0], return_index=True)
    return {group: set(part.tolist()) for group, part in zip(present.tolist(), np.split(frames[:, 1], first[1:]))}


def _join(links: list[list[int]], seen_in: dict[int, set[int]]) -> Iterable[bool]:
    """For each link in turn, whether it joins groups that have no frame in common; updates `seen_in`."""
    root = {group: group for group in seen_in}

    def find(group: int) -> int:
        while root[group] != group:
            root[group] = group = root[root[group]]
        return group

    for left, right in links:
        left, right = find(left), find(right)
        if len(seen_in[left]) < len(seen_in[right]):
            left, right = right, left
        joins = left != right and seen_in[left].isdisjoint(seen_in[right])
        if joins:
            root[right] = left
            seen_in[left] |= seen_in.pop(right)
        yield joins


def mutual(count: int, links: np.ndarray, distances: np.ndarray, neighbors: int) -> np.ndarray:
    """Mask `[l]` of the links between groups that are both among the `neighbors` nearest of the other.

    Of equally near ones, those with the lowest numbers are nearest; the arguments are as for `constrained`.
    """
    ends = np.concatenate([links, links[:, ::-1]])
    order = np.lexsort((ends[:, 1], np.round(np.tile(distances, 2) / TIE), ends[:, 0]))
    starts = np.searchsorted(ends[order, 0], np.arange(count))
    near = np.empty(len(ends), bool)
    near[order] = np.arange(len(ends)) - starts[ends[order, 0]] < neighbors
    return near[: len(links)] & near[len(links) :]


def hdbscan(count: int, links: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Clusters of HDBSCAN* of each connected component; identities `[count]`, arguments as for `constrained`.

    Groups that it calls noise stay alone. scikit-learn takes a sparse graph only if it is connected.
    """
    component, number = closure.groups(count, links), np.arange(count)
    sizes = np.bincount(component)
    members = np.split(np.argsort(component, kind="stable"), np.cumsum(sizes)[:-1])
    of_link = component[links[:, 0]]
    inside = np.split(np.argsort(of_link, kind="stable"), np.cumsum(np.bincount(of_link, minlength=len(sizes)))[:-1])
    for index in np.flatnonzero(sizes > 1):
        nodes = members[index]
        own = inside[index]
        number[nodes] = nodes[_clustered(np.searchsorted(nodes, links[own]), distances[own], len(nodes))]
    return closure.numbered(number)


def _clustered(links: np.ndarray, distances: np.ndarray, count: int) -> np.ndarray:
    """The first member `[count]` of the cluster of each node of one connected graph; noise is alone."""
    if count == 2:
        return np.zeros(2, np.int64)
    values = np.maximum(distances, TIE)  # in a sparse graph, 0 means no edge
    graph = sparse.coo_array((values, links.T), shape=(count, count)).tocsr()
    clusters = HDBSCAN(min_cluster_size=2, min_samples=1, metric="precomputed", allow_single_cluster=True)
    clusters.set_params(copy=True)  # the default warns
    labels = clusters.fit(sparse.csr_matrix(graph + graph.T)).labels_
    first = np.arange(count)
    present, start = np.unique(labels, return_index=True)
    clustered = labels >= 0
    first[clustered] = start[np.searchsorted(present, labels[clustered])]
    return first
