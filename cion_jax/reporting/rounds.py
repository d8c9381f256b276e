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
            "These identities were found without labels. The network of round 0 is trained on raw tracklets or images, "
            "or read from a file; that of every later round is trained on the identities of the round before. Its "
            "features are centered by video and whitened, and sigma_cst and sigma_drm are calibrated on pairs of "
            f"tracklets that share a frame. {outcome(report)}"
        )
    ]
    if "collapsed" in report["ended"]:
        blocks.append(Warnings([report["ended"]]))
    header, *rows = _cells(report["rounds"])
    columns = [Column(header[0]), *(Column(name, good=_GOOD.get(name, "")) for name in header[1:])]
    scored = "; P, R and F1 are pairwise precision, recall and F1 against the true persons" if "F1" in header else ""
    caption = (
        "Rounds; shares in %. cst and drm: calibrated sigma_cst and sigma_drm. direct: of the pairs of tracklets that "
        "closure joins at sigma_drm, the share that are themselves within sigma_drm; the lower, the more links chain. "
        "largest: share of the images that are in the largest identity. n_S: noise (Eq. 3). ARI: adjusted Rand index "
        f"with the identities of the round before{scored}."
    )
    return Section(
        "Bootstrapped rounds", [*blocks, Table(caption, columns, rows), Pictures([_chart(report["rounds"])])]
    )


def print_rounds(report: dict[str, Any]) -> None:
    """Prints the table of rounds and why they ended."""
    header, *rows = _cells(report["rounds"])
    table = rich.table.Table(title="Bootstrapped rounds, without labels (shares in %)", box=SIMPLE_HEAD, padding=0)
    for name in header:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(outcome(report), markup=False, highlight=False)


def outcome(report: dict[str, Any]) -> str:
    """Why the rounds ended, and whose identities are kept, in words."""
    return f"Rounds ended: {report['ended']}. The identities are those of round {report['good']}."


_GOOD = {"direct": "50 or more", "largest": "few", "n_S": "0 is best", "ARI": "1: the same"}
_GOOD |= dict.fromkeys(("P", "R", "F1"), "100 is best")


def _cells(rounds: list[dict[str, Any]]) -> list[list[str]]:
    """The table's header and rows."""
    header = ["round", "cst", "drm", "direct", "identities", "largest", "n_S", "ARI"]
    scored = all("pairwise" in entry for entry in rounds)
    if scored:
        header += ["P", "R", "F1"]
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
    figure, axes = chart("round", "share", "Agreement with the round before, and F1, by round")
    lines = {"adjusted Rand index with the round before": [entry["agreement"] for entry in rounds]}
    if all("pairwise" in entry for entry in rounds):
        lines["pairwise F1 against true persons"] = [entry["pairwise"]["f1"] for entry in rounds]
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
