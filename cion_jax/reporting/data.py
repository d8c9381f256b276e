"""Report section on the input data: counts, and problems that `cion_jax.samples.doctor` found."""

from typing import Any

from cion_jax.reporting.page import Block, Column, Section, Table, Text, Warnings
from cion_jax.samples.table import EXAMPLES

_COUNTS = {
    "images": "person crops (more is better)",
    "videos": "videos or camera recordings that the crops come from (good: many)",
    "cameras": "cameras",
    "tracklets": "tracklets: sequences of crops that the tracker assigned to one person (good: few and long)",
    "identities": "identities used for training",
    "persons": "true persons, if known; used for scoring only",
    "discarded": "crops without identity (-1), not used for training (good: few)",
}
_SPREADS = {"images_per_tracklet": "crops per tracklet", "images_per_identity": "crops per identity"}
_PIXELS = {
    "height": "height of crops in pixels (good: 128 or more; below 32, people are hardly recognisable)",
    "width": "width of crops in pixels (good: 64 or more)",
}
_TOO_MANY = (
    "The images were not checked one by one: there are too many to do so by default. "
    "`python -m cion_jax.samples.doctor` checks them; with --out=doctor.json in this run's folder, "
    "its findings are shown here."
)


def data_section(examined: dict[str, Any], ingested: dict[str, Any] | None) -> Section:
    """Summarises the input data.

    Args:
        examined: report of `cion_jax.samples.examination.examine`, without "images" if there were too many to check.
        ingested: report of `cion_jax.samples.ingest`, if this run cut the crops out of videos.
    """
    counts = examined["contents"]
    blocks = [] if ingested is None else _videos(ingested)
    rows = [[label, f"{counts[name]:,}"] for name, label in _COUNTS.items() if name in counts]
    columns = Column("Item"), Column("Count")
    blocks.append(Table("Contents of the sample table", columns, rows))
    if sizes := _sizes(examined):
        blocks.append(sizes)
    if "images" not in examined:
        blocks.append(Text(_TOO_MANY))
    problems, remarks = examined.get("problems", []), examined.get("remarks", [])
    if problems:
        blocks.append(Warnings([f"Wrong: {_finding(problem)}" for problem in problems]))
    elif "images" in examined:
        blocks.append(Text("Every image was decoded, and nothing is wrong with the data."))
    blocks += [Text(f"Note: {_finding(remark)}") for remark in remarks]
    return Section("Input data", blocks)


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


def _sizes(examined: dict[str, Any]) -> Table | None:
    counts, images = examined["contents"], examined.get("images", {})
    rows = [
        [label, *(f"{value:,.0f}" for value in counts[name])] for name, label in _SPREADS.items() if counts.get(name)
    ]
    rows += [
        [label, *(f"{value:,.0f}" for value in images[name])] for name, label in _PIXELS.items() if images.get(name)
    ]
    columns = [Column("Item"), Column("smallest"), Column("median"), Column("largest")]
    return Table("Sizes: smallest, median and largest", columns, rows) if rows else None


def _finding(finding: dict[str, Any]) -> str:
    more = ", ..." if finding["count"] > len(finding["examples"]) else ""
    return f"{finding['count']:,} {finding['what']} ({'; '.join(finding['examples'])}{more})"
