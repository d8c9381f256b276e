"""The section on what went in: counts, and what the doctor found."""

from typing import Any

from cion_jax.reporting.page import Column, Section, Table, Text, Warnings

_COUNTS = {
    "images": "person crops",
    "videos": "videos, or camera recordings, that crops were cut out of",
    "cameras": "cameras",
    "tracklets": "tracklets: runs of crops that the tracker took for one person",
    "identities": "identities that training groups by",
    "persons": "true persons, where these are known; only ever used to score",
    "discarded": "crops without identity (-1), not trained on",
}
_SPREADS = {"images_per_tracklet": "crops per tracklet", "images_per_identity": "crops per identity"}
_PIXELS = {
    "height": "height of crops in pixels (good: 128 and more; under 32, hardly anybody is recognised)",
    "width": "width of crops in pixels (good: 64 and more)",
}


def data_section(found: dict[str, Any]) -> Section:
    """What `cion_jax.samples.doctor.examine` found; without its images, where there were too many to look at."""
    counts = found["contents"]
    rows = [[what, f"{counts[name]:,}"] for name, what in _COUNTS.items() if name in counts]
    columns = Column("What"), Column("How many", good="the more, the better")
    blocks: list = [Table("What the sample table holds.", columns, rows), Table(*_sizes(found))]
    if "images" not in found:
        blocks.append(Text("The images were not looked at one by one: there are too many to do so unasked."))
    problems, remarks = found.get("problems", []), found.get("remarks", [])
    if problems:
        blocks.append(Warnings([f"Wrong: {_finding(problem)}" for problem in problems]))
    elif "images" in found:
        blocks.append(Text("Every image was decoded, and nothing is wrong with the data."))
    blocks += [Text(f"Note: {_finding(remark)}") for remark in remarks]
    return Section("What went in", blocks)


def _sizes(found: dict[str, Any]) -> tuple[str, list[Column], list[list[str]]]:
    counts, images = found["contents"], found.get("images", {})
    rows = [[what, *(f"{value:,.0f}" for value in counts[name])] for name, what in _SPREADS.items() if counts.get(name)]
    rows += [[what, *(f"{value:,.0f}" for value in images[name])] for name, what in _PIXELS.items() if images.get(name)]
    columns = [Column("What"), Column("smallest"), Column("median", good="the usual one"), Column("largest")]
    return "Sizes, from the smallest to the largest.", columns, rows


def _finding(finding: dict[str, Any]) -> str:
    more = ", ..." if finding["count"] > len(finding["examples"]) else ""
    return f"{finding['count']:,} {finding['what']} ({'; '.join(finding['examples'])}{more})"
