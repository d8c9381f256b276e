"""Results of a search: a terminal table and a contact sheet."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cion_jax.reporting.correlation_report import new_console, new_table
from cion_jax.reporting.figures import contact_sheet
from cion_jax.samples import UndecodableImage, load_image, open_images

_SHOWN = 3  # identities and tracklets of a query on the sheet


def print_matches(found: Sequence[Mapping[str, Any]]) -> None:
    """Prints the nearest identities of each query."""
    console = new_console()
    for query in found:
        table = new_table(query["image"], "identity", "distance", "images", "videos")
        for match in query["identities"]:
            values = match["identity"], f"{match['distance']:.3f}", f"{match['images']:,}", f"{len(match['videos']):,}"
            table.add_row(*map(str, values))
        console.print(table)


def matches_sheet(found: Sequence[Mapping[str, Any]], images: str | os.PathLike, out: str | os.PathLike) -> int:
    """Writes a contact sheet (PNG): each query, and under it crops of its nearest identities and tracklets.

    Returns:
        The number of crops skipped because they cannot be decoded in `images`.
    """
    store, rows, captions, skipped = open_images(images), [], [], 0
    for query in found:
        rows.append([load_image(query["image"])])
        captions.append(f"query {query['image']}")
        for kind, name in (("identities", "identity"), ("tracklets", "tracklet of identity")):
            for match in query[kind][:_SHOWN]:
                crops: list[np.ndarray] = []
                for path in match["examples"]:
                    try:
                        crops.append(store.load(path))
                    except UndecodableImage:
                        skipped += 1
                rows.append(crops)
                captions.append(f"{name} {match['identity']}, distance {match['distance']:.3f}")
    contact_sheet(rows, out, captions=captions, load=lambda image: image)
    return skipped
