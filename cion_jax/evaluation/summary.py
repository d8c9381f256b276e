"""Text summaries of reports of `cion_jax.evaluate`: a few lines for one report, a table for several."""

from collections.abc import Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]
_SHOWN = {"mAP": "mAP", "Rank-1": "rank1", "Rank-5": "rank5", "Rank-10": "rank10", "mINP": "mINP"}


def summary(report: Report) -> str:
    """Summarises a report in a few lines, with the reasons why queries or images were skipped."""
    lines = [_scores(report)]
    if reranked := report.get("reranked"):
        lines.append(f"{_scores(reranked)}  (re-ranked, k1 {reranked['k1']}, k2 {reranked['k2']})")
    lines.append(f"{report['queries']} queries scored against {report['gallery']} gallery images")
    if absent := report["queries_absent_from_gallery"]:
        lines.append(f"{absent} queries left out: their identity is not in the gallery")
    if alone := report["queries_matched_by_own_camera_only"]:
        lines.append(
            f"{alone} queries left out: all their matches are from their own camera (--ignore_camera keeps them)"
        )
    if undecodable := report["undecodable"]:
        lines.append(f"{undecodable} images left out: they could not be decoded")
    if probe := report.get("probe"):
        lines.append(
            f"identities across cameras: kNN {100 * probe['knn']:.1f}  linear {100 * probe['linear']:.1f}  "
            f"({probe['people']} people, split {probe['split']}: {probe['fitted']} images fitted, "
            f"{probe['tested']} tested)"
        )
    return "\n".join(lines)


def _scores(scores: Report) -> str:
    return "  ".join(f"{name} {100 * scores[key]:.1f}" for name, key in _SHOWN.items())


def table(reports: Sequence[Report]) -> str:
    """Returns a Markdown table of mAP / Rank-1: a row per network, a column per data set, in the reports' order."""
    columns = list(dict.fromkeys(_column(report) for report in reports))
    rows: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for report in reports:
        network = report["model"], report["weights"] or "untrained"
        rows.setdefault(network, {})[_column(report)] = _cell(report)
    names = [name for name, _ in columns]
    titles = [f"{name} {root}" if names.count(name) > 1 else name for name, root in columns]
    score = "mAP / Rank-1, then re-ranked" if any("reranked" in report for report in reports) else "mAP / Rank-1"
    lines = [["model", "weights", *(f"{title}: {score}" for title in titles)], ["---"] * (2 + len(columns))]
    lines += [[*network, *(cells.get(column, "") for column in columns)] for network, cells in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _column(report: Report) -> tuple[str, str]:
    return report["dataset"], report["root"]


def _cell(report: Report) -> str:
    parts = [report, *([report["reranked"]] if "reranked" in report else [])]
    return ", ".join(f"{100 * part['mAP']:.1f} / {100 * part['rank1']:.1f}" for part in parts)
