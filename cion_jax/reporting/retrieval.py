"""Report sections on retrieval: scores of all networks, and one network's ranked lists of best and worst queries."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cion_jax.evaluation.evidence import Evidence
from cion_jax.reporting.drawing import jpeg
from cion_jax.reporting.page import Block, Column, Crop, Section, Strip, Strips, Table, Text
from cion_jax.samples import load_image

_SCORES = {"mAP": "mAP", "rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "mINP": "mINP"}


def retrieval_section(scores: Mapping[str, Mapping[str, Any]]) -> Section:
    """Tabulates reports of `cion_jax.evaluation.run.evaluate` by name of the network."""
    first = next(iter(scores.values()))
    columns = [Column("Network")] + [Column(name, "%", "100 is best") for name in _SCORES.values()]
    rows = [[name, *(f"{100 * report[score]:.1f}" for score in _SCORES)] for name, report in scores.items()]
    caption = (
        "For each query, the gallery is ranked by similarity; images of the person from the query's camera are left "
        "out. mAP is the mean average precision, Rank-k the share of queries with a match among the top k, and mINP "
        "reflects the rank of the last match."
    )
    blocks: list[Block] = [Text(_in_words(first)), Table(caption, columns, rows)]
    return Section("Retrieval", blocks)


def lists_section(network: str, evidence: Evidence) -> Section:
    """Shows the ranked lists of the best and worst queries."""
    worst, best = np.array_split(np.arange(len(evidence.listed)), 2)
    scored = evidence.average_precision[np.isfinite(evidence.average_precision)]
    text = (
        f"Network: {network}. Each row shows the query and its ranked gallery, most similar first. A green frame with "
        f"✓ is the same person, a red one with ✗ another; the number is the cosine distance (0: equal features). Of "
        f"{len(scored):,} queries, {np.mean(scored == 1):.0%} are perfect (average precision 100%); the median "
        f"average precision is {np.median(scored):.0%}."
    )
    strips = [
        Strips(caption, [_list(evidence, number) for number in numbers])
        for caption, numbers in (
            ("Worst queries", worst),
            ("Best queries", best[::-1]),
        )
    ]
    return Section("Ranked lists", [Text(text), *strips])


def _in_words(report: Mapping[str, Any]) -> str:
    left_out = report["queries_absent_from_gallery"] + report["queries_matched_by_own_camera_only"]
    text = f"{report['queries']:,} queries are searched for among {report['gallery']:,} gallery images."
    if report.get("source"):
        text += f" Benchmark: {report['source']}."
    if left_out:
        text += f" {left_out:,} queries have no match and are not scored."
    if report["undecodable"]:
        text += f" {report['undecodable']:,} images could not be decoded and are left out."
    return text


def _list(evidence: Evidence, number: int) -> Strip:
    precision = evidence.average_precision[evidence.listed[number]]
    right = evidence.ranked_right[number]
    present = np.isfinite(evidence.ranked_distances[number])
    title = (
        f"person {evidence.listed_people[number]}: average precision {precision:.0%}, "
        f"{np.count_nonzero(right & present)} of the top {np.count_nonzero(present)} correct"
    )
    query = Crop(jpeg(load_image(evidence.listed_paths[number])), "Query", "query", "query")
    ranked = []
    for rank in np.flatnonzero(present):
        mark, shown = ("right", "the same person") if right[rank] else ("wrong", "another person")
        source = jpeg(load_image(evidence.ranked_paths[number][rank]))
        caption = f"{evidence.ranked_distances[number][rank]:.2f}"
        ranked.append(Crop(source, f"Rank {rank + 1}, {shown}", caption, mark))
    return Strip(title, [query], others=ranked)
