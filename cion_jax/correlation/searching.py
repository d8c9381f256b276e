"""Search of a correlated set: the identities and tracklets whose centroids are nearest to a query."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cion_jax.correlation.checks import check_features
from cion_jax.correlation.engine import rounding
from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.engine.distances import (
    SHORTEST_SUM,
    TIE,
    add_rows,
    distance,
    exact_unit,
    sums_by_label,
)
from cion_jax.correlation.growing.index import Index, read_index, stacked
from cion_jax.correlation.results import IDENTITIES
from cion_jax.runtime.arrays import RowArray
from cion_jax.samples import read_rows

SHOWN = 6  # images that are listed for each match
_PRODUCTS = 2**26  # distances that are in memory at once
_IMAGES_AT_ONCE = 2**13


class Nearest(NamedTuple):
    """Nearest groups of each query: their numbers and cosine distances, both `[queries, top]`, nearest first."""

    groups: np.ndarray
    distances: np.ndarray


def search(folder: str | os.PathLike, queries: np.ndarray, *, top: int = 10) -> list[dict[str, Any]]:
    """Finds the `top` identities and tracklets of a correlated set that are nearest to each query.

    dist(q, c_k) = 1 - q . c_k / (|q| |c_k|),   c_k [d] mean of the unit features of an identity's or tracklet's images

    Tracklets are those after Eq. 6, i.e. merged within their video. The ranking is exact: products of all queries with
    all centroids, in float32, select candidates, and float64 distances from the images rank them.

    Args:
        folder: `out` of `correlate_to` or `extend_to`.
        queries: `[queries, d]` float16 or float32 features of the extractor whose features were correlated.
        top: Number of matches.

    Returns:
        For each query `{"identities": [...], "tracklets": [...]}`, nearest first; a match has its `identity`,
        `distance`, number of `images`, their `videos`, and the paths of some `examples`.

    Raises:
        ValueError: No index, queries of another dimension or not finite, or `top` below 1.
    """
    index = read_index(folder)
    tracklets = index.state.groups
    check_features(queries)
    if queries.shape[1] != tracklets.sums.shape[1]:
        raise ValueError(f"queries of dimension {queries.shape[1]}, the index has {tracklets.sums.shape[1]}")
    if top < 1:
        raise ValueError(f"top={top}: expected at least 1")
    numbers, people = _identities(index)
    features, table = stacked(index.parts), Path(folder) / IDENTITIES
    ranked = {
        "identities": _described(nearest(queries, people, features, top), people, numbers, table),
        "tracklets": _described(nearest(queries, tracklets, features, top), tracklets, index.identities, table),
    }
    return [dict(zip(ranked, matches)) for matches in zip(*ranked.values())]


def nearest(queries: np.ndarray, groups: Groups, features: RowArray, top: int) -> Nearest:
    """The `top` groups nearest to each query, of equally near ones the lowest; fewer if there are fewer.

    Args:
        queries: `[queries, d]`.
        groups: Groups of images.
        features: `[n, d]`, of these images.
        top: Number of groups.
    """
    at_once = max(1, _PRODUCTS // len(groups.sums))
    blocks = [queries[start : start + at_once] for start in range(0, len(queries), at_once)]
    found = [_nearest(block, groups, features, min(top, len(groups.sums))) for block in blocks]
    return Nearest(*(np.concatenate(column) for column in zip(*found)))


def _nearest(queries: np.ndarray, groups: Groups, features: RowArray, top: int) -> Nearest:
    units, centroids = exact_unit(queries), groups.centroids
    distances = distance(units.astype(np.float32) @ centroids.rows.T * centroids.scale)
    slack = centroids.slack + np.float32(rounding.image_slack(queries.shape[1]))
    farthest = np.partition(distances + slack, top - 1, axis=1)[:, top - 1 : top]
    candidate = distances - slack <= farthest
    union = np.flatnonzero(candidate.any(0))
    exact = distance(units @ _directions(features, groups.assigned, union).T)
    exact[~candidate[:, union]] = np.inf
    order = np.argsort(np.round(exact / TIE), axis=1, kind="stable")[:, :top]
    return Nearest(union[order], np.take_along_axis(exact, order, 1))


def _directions(features: RowArray, assigned: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Unit vectors `[k, d]` in float64 along the centroids of `groups` `[k]`, ascending, from their images."""
    rows = np.flatnonzero(np.isin(assigned, groups))
    sums = np.zeros((len(groups), features.shape[1]))
    for start in range(0, len(rows), _IMAGES_AT_ONCE):
        block = rows[start : start + _IMAGES_AT_ONCE]
        add_rows(sums, np.searchsorted(groups, assigned[block]), exact_unit(features[block]))
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), SHORTEST_SUM)


def _identities(index: Index) -> tuple[np.ndarray, Groups]:
    """The numbers of all identities `[k]`, ascending, and their images as groups in this order."""
    numbers, position = np.unique(index.identities, return_inverse=True)
    tracklets = index.state.groups
    sums = sums_by_label(position, tracklets.sums, len(numbers))
    return numbers, Groups(np.where(tracklets.assigned >= 0, position[tracklets.assigned], -1), sums)


def _described(found: Nearest, groups: Groups, numbers: np.ndarray, table: Path) -> list[list[dict[str, Any]]]:
    """The matches of each query; `numbers` `[groups]` are their identities. The table is read once for all of them."""
    present = np.unique(found.groups)
    rows = np.flatnonzero(np.isin(groups.assigned, present))
    order = np.argsort(groups.assigned[rows], kind="stable")
    content = read_rows(table, rows, ["video", "file_path"]).take(order)
    starts = np.searchsorted(groups.assigned[rows][order], np.append(present, present[-1] + 1))
    about: dict[int, dict[str, Any]] = {}
    for group, start, stop in zip(present.tolist(), starts.tolist(), starts[1:].tolist()):
        spread = np.unique(np.linspace(start, stop - 1, SHOWN).astype(int))
        about[group] = {
            "images": stop - start,
            "videos": sorted(map(str, content["video"].slice(start, stop - start).unique().to_pylist())),
            "examples": content["file_path"].take(spread).to_pylist(),
        }
    return [
        [
            {"identity": int(numbers[group]), "distance": round(distance, 6)} | about[group]
            for group, distance in zip(*query)
        ]
        for query in zip(found.groups.tolist(), found.distances.tolist())
    ]
