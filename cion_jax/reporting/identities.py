"""The sections that show people: identities that were found, and the links most likely to be wrong."""

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
    """Identities found in several videos, as rows of crops from as many of these as there is room for."""
    videos = table.videos
    strips = []
    for identity, members, shown in sheet_rows(table["identity"], videos):
        about = f"identity {identity}: {len(members):,} crops in {len(np.unique(videos[members])):,} videos"
        strips.append(Strip(about, crops(images, table.select(shown)["file_path"].tolist(), f"Identity {identity}")))
    if not any(strip.crops for strip in strips):
        raise ValueError("no identity was found in more than one video, or none of its images can be read")
    text = (
        "A row is one identity, that is, crops that correlation takes for one person, out of as many videos as there "
        "is room for. A good row shows one person throughout. The first rows are the largest identities, where wrong "
        "links show; the others are spread evenly over all."
    )
    return Section("Identities found", [Text(text), Strips("", strips)])


def links_section(report: dict[str, Any], table: SampleTable, images: Images) -> Section:
    """The longest links that hold the largest identities together, from correlation's `report.json`."""
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
        f"Without these links the largest identities would fall apart, and among such links they are the longest: if "
        f"some links are wrong, these are. Both sides were taken for one person at a cosine distance up to sigma_drm = "
        f"{report['settings']['sigma_drm']:g} (0: equal features). A good link shows "
        f"one person in both groups of crops."
    )
    return Section("Most doubtful links", [Text(text), Strips("", strips)])


def _persons(table: SampleTable, paths: list[str]) -> dict[str, int] | None:
    """Whom these images show, where that is known."""
    if "person" not in table.columns:
        return None
    found = table.select(pc.is_in(table.arrow["file_path"], value_set=pa.array(paths)).to_numpy())
    return dict(zip(found["file_path"].tolist(), found["person"].tolist()))


def _link(link: dict[str, Any], level: int, persons: dict[str, int] | None, images: Images) -> Strip:
    (a, b), (left, right) = link["identities"], link["images"]
    title = f"groups {a} and {b} of level {level - 1}, {LEVELS[level]}, distance {link['distance']:.3f}"
    mark = ""
    if persons is not None:
        sides = [_usual([persons[path] for path in side]) for side in (left, right)]
        mark = "right" if sides[0] == sides[1] >= 0 else "wrong"
        title += ": one person" if mark == "right" else ": two persons" if min(sides) >= 0 else ": nobody is shown"
    shown = crops(images, left, f"Identity {a}")
    other = crops(images, right, f"Identity {b}")
    return Strip(title, shown, mark, other)


def _usual(values: list[int]) -> int:
    """The most frequent value, the lowest among equals."""
    found, counts = np.unique(values, return_counts=True)
    return int(found[counts.argmax()])
