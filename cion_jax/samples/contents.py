"""Summary counts of a sample table, and images of one tracklet in one frame."""

from typing import Any

import numpy as np

from cion_jax.samples.table import SampleTable, pc


def contents(table: SampleTable) -> dict[str, Any]:
    """Counts for the columns that the table has.

    images: rows. identities, persons, videos, cameras, tracklets: numbers of distinct values; -1 (discarded identity,
    no person) does not count. discarded: rows with identity -1. images_per_identity and images_per_tracklet:
    `[smallest, median, largest]`.
    """
    counts: dict[str, Any] = {"images": len(table)}
    for name, plural in (("identity", "identities"), ("person", "persons")):
        if name in table.columns:
            known = table[name][table[name] >= 0]
            sizes = np.unique(known, return_counts=True)[1]
            counts[plural] = len(sizes)
            if name == "identity":
                counts["discarded"] = len(table) - len(known)
                counts["images_per_identity"] = spread(sizes)
    for name, plural in (("video", "videos"), ("camera", "cameras")):
        if name in table.columns:
            counts[plural] = pc.count_distinct(table.arrow[name]).as_py()
    if {"video", "tracklet"} <= set(table.columns):
        sizes = np.bincount(table.tracklets)
        counts["tracklets"] = len(sizes)
        counts["images_per_tracklet"] = spread(sizes)
    return counts


def repeated_frames(table: SampleTable) -> tuple[np.ndarray, np.ndarray]:
    """Rows of images whose tracklet has an image in the same frame already, and the rows of those, `[n]` int64 each."""
    frames, numbers = np.unique(table["frame"], return_inverse=True)
    places = table.tracklets.astype(np.int64) * len(frames) + numbers
    _, first, inverse = np.unique(places, return_index=True, return_inverse=True)
    again = np.flatnonzero(np.arange(len(table)) != first[inverse])
    return again, first[inverse][again]


def in_words(counts: dict[str, Any]) -> str:
    """The counts of `contents` as one line of text."""
    shown = ("images", "identities", "persons", "videos", "cameras", "tracklets")
    return ", ".join(f"{counts[name]:,} {name}" for name in shown if name in counts)


def spread(values: np.ndarray) -> list[float]:
    """Smallest, median and largest value; an empty list for no values."""
    return [float(value) for value in np.quantile(values, (0, 0.5, 1))] if len(values) else []
