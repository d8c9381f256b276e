"""Bootstrapped rounds: the report's section, and the table that a run prints."""

from typing import Any

import rich.table
from rich.box import SIMPLE_HEAD
from rich.console import Console

from cion_jax.reporting.drawing import COLOURS, chart, legend_below, svg
from cion_jax.reporting.page import Block, Column, Picture, Pictures, Section, Table, Text, Warnings


def rounds_section(report: dict[str, Any]) -> Section:
    """Calibration, noise, agreement and, where persons are known, accuracy of every round.

    Args:
        report: `rounds.json` of a run.
    """
    blocks: list[Block] = [
        Text(
            "No label was used to find these identities. Each round extracts features with a network trained on the "
            "identities of the previous round (the first: on tracklets or images as they are), centers them by video, "
            "whitens them, and calibrates both thresholds on tracklets that share a frame. "
            f"The rounds ended: {report['ended']}. The identities are those of round {report['good']}."
        )
    ]
    if "collapsed" in report["ended"]:
        blocks.append(Warnings([report["ended"]]))
    header, *rows = _cells(report["rounds"])
    columns = [Column(header[0]), *(Column(name, good=_GOOD.get(name, "")) for name in header[1:])]
    caption = (
        "Rounds. cst and drm are the calibrated thresholds. Links is the share of the pairs of tracklets joined by "
        "closure that are within drm themselves, largest that of the images in the largest identity. ARI is the "
        "adjusted Rand index with the identities of the round before. P, R and F1 are scored on true persons."
    )
    return Section(
        "Bootstrapped rounds", [*blocks, Table(caption, columns, rows), Pictures([_chart(report["rounds"])])]
    )


def print_rounds(report: dict[str, Any]) -> None:
    """Prints the table of rounds and why they ended."""
    header, *rows = _cells(report["rounds"])
    table = rich.table.Table(title="Bootstrapped rounds, without labels", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in header:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"Ended: {report['ended']}. Identities are those of round {report['good']}.", highlight=False)


_GOOD = {"n_S": "0 is best", "ARI": "near 1", "links, %": "50 or more", "largest, %": "few"}
_GOOD |= dict.fromkeys(("P, %", "R, %", "F1, %"), "100 is best")


def _cells(rounds: list[dict[str, Any]]) -> list[list[str]]:
    """The table's header and rows."""
    header = ["round", "cst", "drm", "links, %", "identities", "largest, %", "n_S", "ARI"]
    scored = all("pairwise" in entry for entry in rounds)
    if scored:
        header += ["P, %", "R, %", "F1, %"]
    rows = []
    for entry in rounds:
        agreement = "" if entry["agreement"] is None else f"{entry['agreement']:.2f}"
        row = [str(entry["round"]), f"{entry['sigma_cst']:.3f}", f"{entry['sigma_drm']:.3f}"]
        row += [f"{100 * entry['support']:.0f}", f"{entry['identities']:,}", f"{100 * entry['largest']:.1f}"]
        row += [f"{entry['noise']:.2f}", agreement]
        if scored:
            row += [f"{100 * entry['pairwise'][name]:.1f}" for name in ("precision", "recall", "f1")]
        rows.append(row)
    return [header, *rows]


def _chart(rounds: list[dict[str, Any]]) -> Picture:
    figure, axes = chart("round", "share", "Agreement and accuracy by round (higher is better)")
    lines = {"agreement with the round before": [entry["agreement"] for entry in rounds]}
    if all("pairwise" in entry for entry in rounds):
        lines["pairwise F1 (true persons)"] = [entry["pairwise"]["f1"] for entry in rounds]
    for (name, values), colour in zip(lines.items(), COLOURS):
        points = [(entry["round"], value) for entry, value in zip(rounds, values, strict=True) if value is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=name)
    axes.set_xticks([entry["round"] for entry in rounds])
    axes.set_ylim(0, 1)
    legend_below(figure)
    amounts = "; ".join(
        f"{name}: {', '.join('-' if v is None else f'{v:.2f}' for v in vs)}" for name, vs in lines.items()
    )
    return Picture(svg(figure), f"Line chart by round. {amounts}.")
