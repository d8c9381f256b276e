"""Report section on identity correlation: noise and accuracy per level, and identity sizes."""

from typing import Any

import numpy as np

from cion_jax.reporting.correlation_report import background_line
from cion_jax.reporting.drawing import COLOURS, chart, legend_below, svg
from cion_jax.reporting.page import Block, Column, Picture, Pictures, Section, Table, Text, Warnings

LEVELS = ("tracklets as tracked", "single tracklets denoised", "linked within videos", "linked across videos")
_PER_IDENTITY = "per identity"


def noise_section(report: dict[str, Any], identities: np.ndarray, persons: np.ndarray | None) -> Section:
    """Summarises correlation.

    Args:
        report: correlation's `report.json`.
        identities: `[rows]`, -1 for discarded images.
        persons: `[rows]` true persons, or None if unknown.

    Raises:
        ValueError: Every image was discarded.
    """
    levels = report["levels"]
    blocks: list[Block] = [
        Text(
            "Identity correlation starts from tracklets and groups those of the same person, level by level. The noise "
            "n_S (Eq. 3 of the paper) counts contradictions between identities and features: images far from their own "
            "identity (consistency), and other identities so near that they are likely the same person "
            "(discrimination). It needs no labels."
        )
    ]
    if warnings := [f"Level {entry['level']}: {entry['warning']}" for entry in levels if "warning" in entry]:
        blocks.append(Warnings(warnings))
    blocks.append(_noise_table(levels))
    if "covisible_links" in levels[0] or "pairwise" in levels[0]:
        blocks.append(_quality_table(levels))
    if report.get("background", {}).get("identities"):
        blocks.append(Text(background_line(report)))
    sizes = np.unique(identities[identities >= 0], return_counts=True)[1]
    true = None if persons is None else np.unique(persons[persons >= 0], return_counts=True)[1]
    if not len(sizes):
        raise ValueError("every image was discarded: there is no identity to count")
    blocks.append(Pictures([_noise_chart(levels), _sizes_chart(sizes, true)]))
    return Section("Noise and identities", blocks)


def level_name(entry: dict[str, Any]) -> str:
    return f"{entry['level']}: {LEVELS[entry['level']]}"


def _noise_table(levels: list[dict[str, Any]]) -> Table:
    columns = (
        Column("Level of denoising"),
        Column("identities", good="near the number of people"),
        Column("images kept", good="more is better"),
        Column("discarded", "images", "few"),
        Column("n_S", _PER_IDENTITY, "0 is best"),
        Column("consistency", _PER_IDENTITY, "0 is best"),
        Column("discrimination", _PER_IDENTITY, "0 is best"),
        Column("time", "s"),
    )
    counts, parts = ("identities", "images_kept", "images_discarded"), ("noise_consistency", "noise_discrimination")
    rows = [
        [
            level_name(entry),
            *(f"{entry[name]:,}" for name in counts),
            *(f"{entry[name]:,.2f}" for name in ("noise", *parts)),
            f"{entry['seconds']:,.1f}",
        ]
        for entry in levels
    ]
    return Table("Result and noise of each level", columns, rows)


def _quality_table(levels: list[dict[str, Any]]) -> Table:
    framed, scored = (name in levels[0] for name in ("covisible_links", "pairwise"))
    columns = [Column("Level of denoising")]
    if framed:
        columns += [Column("false links", good="0 is best"), Column("identities in conflict", good="0 is best")]
    if scored:
        columns += [Column(name, "%", "100 is best") for name in ("precision", "recall", "F1", "purity")]
    rows = []
    for entry in levels:
        cells = [f"{entry[name]:,}" for name in ("covisible_links", "covisible_identities")] if framed else []
        cells += [f"{100 * entry['pairwise'][name]:.1f}" for name in _SCORES] if scored else []
        rows.append([level_name(entry), *cells])
    seen = "False links join two people who appear in the same frame; identities in conflict contain such people. "
    known = (
        "Precision is the share of pairs of crops within an identity that show one person, recall the share of pairs "
        "of crops of one person that share an identity, and F1 their harmonic mean. Purity is the share of crops that "
        "show the most frequent person of their identity."
    )
    caption = f"Accuracy of each level. {seen if framed else ''}{known if scored else ''}"
    return Table(caption.strip(), columns, rows)


_SCORES = ("precision", "recall", "f1", "purity")


def _noise_chart(levels: list[dict[str, Any]]) -> Picture:
    figure, axes = chart("level of denoising", f"noise {_PER_IDENTITY}", "Noise n_S by level (lower is better)")
    bottom = np.zeros(len(levels))
    for name, colour in zip(("consistency", "discrimination"), COLOURS):
        heights = np.array([entry[f"noise_{name}"] for entry in levels])
        axes.bar(range(len(levels)), heights, 0.6, bottom, color=colour, label=name)
        bottom += heights
    axes.set_xticks(range(len(levels)), [str(entry["level"]) for entry in levels])
    for level, total in enumerate(bottom):
        axes.annotate(f"{total:.2f}", (level, total), ha="center", va="bottom", fontsize=8)
    axes.margins(y=0.1)
    legend_below(figure)
    amounts = ", ".join(f"level {entry['level']}: {entry['noise']:.2f}" for entry in levels)
    return Picture(svg(figure), f"Bar chart of the noise n_S per identity by level of denoising. {amounts}.")


def _sizes_chart(sizes: np.ndarray, true: np.ndarray | None) -> Picture:
    figure, axes = chart("crops of an identity", "identities", "Crops per identity")
    largest = max(sizes.max(), 2 if true is None else true.max())
    bins = np.unique(np.geomspace(1, largest + 1, 25).round()).tolist()
    axes.hist(sizes, bins, color=COLOURS[0], alpha=0.75, label=f"found ({len(sizes):,})")
    if true is not None:
        axes.hist(true, bins, histtype="step", color=COLOURS[1], linewidth=1.6, label=f"true persons ({len(true):,})")
        legend_below(figure)
    axes.set_xscale("log")
    low, middle, high = np.quantile(sizes, (0, 0.5, 1))
    summary = f"identities have {low:,.0f} to {high:,.0f} crops, half of them at most {middle:,.0f}"
    caption = f"{summary[0].upper()}{summary[1:]}. A single one far to the right is a chain of wrong links."
    return Picture(svg(figure), f"Histogram of identity sizes: {summary}.", caption)
