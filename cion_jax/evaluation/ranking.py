"""At which ranks a query's matches are, without putting the whole gallery in order."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from cion_jax.evaluation.distances import blocks
from cion_jax.runtime.mesh import double_buffered

# Distances `[queries, gallery]` of the queries with these numbers: computed when they are asked for.
DistancesOf = Callable[[np.ndarray], Any]


class Related(NamedTuple):
    """The gallery images of a query's identity, as ascending indices: its matches, and those left out."""

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
    """For each query: images of its identity from other cameras, and from its own (with `ignore_camera`, none)."""
    order = np.argsort(gallery_ids, kind="stable")
    starts, stops = (np.searchsorted(gallery_ids[order], query_ids, side) for side in ("left", "right"))
    found = []
    for start, stop, camera in zip(starts, stops, query_cameras):
        same = order[start:stop]
        own = (gallery_cameras[same] == camera) & (not ignore_camera)
        found.append(Related(same[~own], same[own]))
    return found


def ranks_of_matches(distances_of: DistancesOf, gallery: int, related: Sequence[Related]) -> list[np.ndarray]:
    """For each query the ranks of its matches (`match_ranks`) in a gallery of so many images.

    A block of distances is computed while that before it is ranked, by a thread per core (NumPy releases the
    interpreter lock).
    """
    computed = ((queries, distances_of(queries)) for queries in blocks(len(related), gallery))
    found: list[np.ndarray] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for queries, block in double_buffered(computed):
            found += pool.map(match_ranks, np.asarray(block), [related[query] for query in queries])
    return found


def match_ranks(distances: np.ndarray, related: Related) -> np.ndarray:
    """Ranks (from 1, ascending) of a query's matches in a gallery at `distances`, ties in index order.

    rank = 1 + number of smaller distances + number of equal ones before it. Only what is as near as the farthest
    match is put in order: for features that are any good, little.
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
