"""Ranks of each query's matches, without sorting the whole gallery."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from cion_jax.evaluation.distances import blocks
from cion_jax.runtime.mesh import double_buffered

# Computes distances `[queries, gallery]` of the queries with the given indices, on demand.
DistancesOf = Callable[[np.ndarray], Any]


class Related(NamedTuple):
    """Gallery images of a query's identity, as ascending indices: its matches, and those excluded from the ranking."""

    matches: np.ndarray
    left_out: np.ndarray


def related_images(
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
    *,
    ignore_camera: bool,
) -> list[Related]:
    """Returns, for each query, the gallery images of its identity.

    Images from the query's own camera are left out; with `ignore_camera`, all are matches.
    """
    order = np.argsort(gallery_ids, kind="stable")
    starts, stops = (np.searchsorted(gallery_ids[order], query_ids, side) for side in ("left", "right"))
    related = []
    for start, stop, camera in zip(starts, stops, query_cameras):
        same = order[start:stop]
        own = (gallery_cameras[same] == camera) & (not ignore_camera)
        related.append(Related(same[~own], same[own]))
    return related


def ranks_of_matches(distances_of: DistancesOf, gallery: int, related: Sequence[Related]) -> list[np.ndarray]:
    """Returns the ranks of each query's matches (see `match_ranks`) in a gallery of `gallery` images.

    The next block of distances is computed while the current one is ranked by one thread per core (NumPy releases the
    interpreter lock).
    """
    computed = ((queries, distances_of(queries)) for queries in blocks(len(related), gallery))
    ranks: list[np.ndarray] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for queries, block in double_buffered(computed):
            ranks += pool.map(match_ranks, np.asarray(block), [related[query] for query in queries])
    return ranks


def match_ranks(distances: np.ndarray, related: Related) -> np.ndarray:
    """Returns the ranks (from 1, ascending) of a query's matches, given `distances` `[gallery]`; ties go by index.

    rank = 1 + number of smaller distances + number of equal distances at lower indices. Only images no farther than
    the farthest match are sorted, which are few for good features.
    """
    matches, left_out = related
    distances = distances.copy()
    distances[left_out] = np.inf
    values = distances[matches]
    ordered = np.sort(distances[distances <= values.max()])
    smaller = np.searchsorted(ordered, values, side="left")
    equal = np.searchsorted(ordered, values, side="right") - smaller
    for tied in np.flatnonzero(equal > 1):
        smaller[tied] += np.count_nonzero(distances[: matches[tied]] == values[tied])
    return np.sort(smaller) + 1
