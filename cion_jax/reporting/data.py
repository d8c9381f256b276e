"""The section on what went in: counts, and what the doctor found."""

from typing import Any

from cion_jax.reporting.page import Block, Column, Section, Table, Text, Warnings
from cion_jax.samples.table import EXAMPLES

_COUNTS = {
    "images": "person crops (the more, the better)",
    "videos": "videos, or camera recordings, that crops were cut out of (good: many)",
    "cameras": "cameras",
    "tracklets": "tracklets: runs of crops that the tracker took for one person (good: long and few)",
    "identities": "identities that training groups by",
    "persons": "true persons, where these are known; only ever used to score",
    "discarded": "crops without identity (-1), not trained on (good: few)",
}
_SPREADS = {"images_per_tracklet": "crops per tracklet", "images_per_identity": "crops per identity"}
_PIXELS = {
    "height": "height of crops in pixels (good: 128 and more; under 32, hardly anybody is recognised)",
    "width": "width of crops in pixels (good: 64 and more)",
}
_TOO_MANY = (
    "The images were not looked at one by one: there are too many to do so unasked. "
    "`python -m cion_jax.samples.doctor` does it, and with --out=doctor.json in this run's folder it "
    "is told here what was found."
)


def data_section(found: dict[str, Any], ingested: dict[str, Any] | None) -> Section:
    """The findings of `samples.examination.examine`; without image statistics if there were too many to decode.

    `ingested` is the report of `cion_jax.samples.ingest`, where crops were cut out of videos in this run.
    """
    counts = found["contents"]
    blocks = [] if ingested is None else _videos(ingested)
    rows = [[what, f"{counts[name]:,}"] for name, what in _COUNTS.items() if name in counts]
    columns = Column("What"), Column("How many")
    blocks.append(Table("What the sample table holds.", columns, rows))
    if sizes := _sizes(found):
        blocks.append(sizes)
    if "images" not in found:
        blocks.append(Text(_TOO_MANY))
    problems, remarks = found.get("problems", []), found.get("remarks", [])
    if problems:
        blocks.append(Warnings([f"Wrong: {_finding(problem)}" for problem in problems]))
    elif "images" in found:
        blocks.append(Text("Every image was decoded, and nothing is wrong with the data."))
    blocks += [Text(f"Note: {_finding(remark)}") for remark in remarks]
    return Section("What went in", blocks)


def _videos(ingested: dict[str, Any]) -> list[Block]:
    broken = ingested["broken"]
    blocks: list[Block] = [
        Text(
            f"From {ingested['videos'] - len(broken):,} videos and {ingested['frames']:,.0f} frames, "
            f"{ingested['crops']:,.0f} person crops were cut out in {ingested['tracklets']:,.0f} tracklets."
        )
    ]
    if broken:
        named = [f"{name}: {reason}" for name, reason in list(broken.items())[:EXAMPLES]]
        more = ["..."] if len(broken) > EXAMPLES else []
        blocks.append(Warnings([f"{len(broken):,} videos could not be used", *named, *more]))
    return blocks


def _sizes(found: dict[str, Any]) -> Table | None:
    counts, images = found["contents"], found.get("images", {})
    rows = [[what, *(f"{value:,.0f}" for value in counts[name])] for name, what in _SPREADS.items() if counts.get(name)]
    rows += [[what, *(f"{value:,.0f}" for value in images[name])] for name, what in _PIXELS.items() if images.get(name)]
    columns = [Column("What"), Column("smallest"), Column("median", good="the usual one"), Column("largest")]
    return Table("Sizes, from the smallest to the largest.", columns, rows) if rows else None


def _finding(finding: dict[str, Any]) -> str:
    more = ", ..." if finding["count"] > len(finding["examples"]) else ""
    return f"{finding['count']:,} {finding['what']} ({'; '.join(finding['examples'])}{more})"
