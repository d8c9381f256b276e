"""Report sections with crops: identities found, and the links most likely to be wrong."""

from typing import Any

import numpy as np
import pyarrow as pa

from cion_jax.reporting.correlation_report import sheet_rows
from cion_jax.reporting.drawing import crops
from cion_jax.reporting.noise import LEVELS
from cion_jax.reporting.page import Section, Strip, Strips, Text
from cion_jax.samples import SampleTable
from cion_jax.samples.stores.sources import Images
from cion_jax.samples.table import pc

_LINKS = 8


def identities_section(table: SampleTable, images: Images) -> Section:
    """Shows identities in several videos, as rows of crops from as many of these videos as fit."""
    videos = table.videos
    strips = []
    for identity, members, shown in sheet_rows(table["identity"], videos):
        title = f"identity {identity}: {len(members):,} crops in {len(np.unique(videos[members])):,} videos"
        strips.append(Strip(title, crops(images, table.select(shown)["file_path"].tolist(), f"Identity {identity}")))
    if not any(strip.crops for strip in strips):
        raise ValueError("no identity was found in more than one video, or none of its images can be read")
    text = (
        "Each row is one identity, i.e. crops that correlation assigned to one person, from as many videos as fit. A "
        "good row shows one person throughout. The first rows are the largest identities, where wrong links show; the "
        "others are spread evenly over all identities."
    )
    return Section("Identities", [Text(text), Strips("", strips)])


def links_section(report: dict[str, Any], table: SampleTable, images: Images) -> Section:
    """Shows the longest links that hold the largest identities together, from correlation's `report.json`."""
    weakest = [
        (link["distance"], entry["level"], link)
        for entry in report["levels"]
        for large in entry.get("largest", [])
        for link in large["weakest_links"]
    ]
    if not weakest:
        raise ValueError("correlation noted no links: it made none, or is of an older version")
    if "images" not in weakest[0][2]:
        raise ValueError("correlation is of a version that kept no images of its links; correlate again")
    weakest.sort(key=lambda link: link[0], reverse=True)
    shown = weakest[:_LINKS]
    persons = _persons(table, [path for _, _, link in shown for side in link["images"] for path in side])
    strips = [_link(link, level, persons, images) for _, level, link in shown]
    text = (
        f"Without these links, the largest identities would split; of all such links, these are the longest and the "
        f"most likely to be wrong. Groups are linked if their cosine distance is at most sigma_drm = "
        f"{report['settings']['sigma_drm']:g} (0: equal features). A good link shows "
        f"one person in both groups of crops."
    )
    return Section("Least certain links", [Text(text), Strips("", strips)])


def _persons(table: SampleTable, paths: list[str]) -> dict[str, int] | None:
    """True persons by image path, or None if unknown."""
    if "person" not in table.columns:
        return None
    rows = table.select(pc.is_in(table.arrow["file_path"], value_set=pa.array(paths)).to_numpy())
    return dict(zip(rows["file_path"].tolist(), rows["person"].tolist()))


def _link(link: dict[str, Any], level: int, persons: dict[str, int] | None, images: Images) -> Strip:
    (a, b), (left, right) = link["identities"], link["images"]
    title = f"groups {a} and {b} of level {level - 1}, {LEVELS[level]}, distance {link['distance']:.3f}"
    mark = ""
    if persons is not None:
        sides = [_most_frequent([persons[path] for path in side]) for side in (left, right)]
        mark = "right" if sides[0] == sides[1] >= 0 else "wrong"
        title += ": one person" if mark == "right" else ": two persons" if min(sides) >= 0 else ": no person shown"
    shown = crops(images, left, f"Identity {a}")
    other = crops(images, right, f"Identity {b}")
    return Strip(title, shown, mark, other)


def _most_frequent(values: list[int]) -> int:
    """Most frequent value; ties go to the lowest."""
    distinct, counts = np.unique(values, return_counts=True)
    return int(distinct[counts.argmax()])
