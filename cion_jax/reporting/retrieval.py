"""The section on retrieval: scores of all networks, and the lists of the best and worst queries of one."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cion_jax.evaluation.evidence import Evidence
from cion_jax.reporting.drawing import jpeg
from cion_jax.reporting.page import Block, Column, Crop, Section, Strip, Strips, Table, Text
from cion_jax.samples import load_image

_SCORES = {"mAP": "mAP", "rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "mINP": "mINP"}


def retrieval_section(scores: Mapping[str, Mapping[str, Any]]) -> Section:
    """The scores of named networks, as `cion_jax.evaluate.evaluate` reports them."""
    first = next(iter(scores.values()))
    columns = [Column("Network")] + [Column(name, "%", "100 is best") for name in _SCORES.values()]
    rows = [[name, *(f"{100 * found[score]:.1f}" for score in _SCORES)] for name, found in scores.items()]
    caption = (
        "For every query the gallery is put in order of similarity; images of the query's own camera are left out. "
        "mAP averages how early all images of the person come, Rank-k is how often one is among the first k, and mINP "
        "tells how early the last one comes."
    )
    blocks: list[Block] = [Text(_in_words(first)), Table(caption, columns, rows)]
    return Section("Retrieval", blocks)


def lists_section(network: str, evidence: Evidence) -> Section:
    """Ranked lists of the best and worst queries."""
    worst, best = np.array_split(np.arange(len(evidence.listed)), 2)
    scored = evidence.average_precision[np.isfinite(evidence.average_precision)]
    text = (
        f"Network: {network}. First comes the query, then the gallery from the most similar on. A green frame with ✓ "
        f"is the same person, a red one with ✗ another; the number is the cosine distance (0: equal features). Of "
        f"{len(scored):,} queries, {np.mean(scored == 1):.0%} are perfect (average precision 100%); the median is "
        f"{np.median(scored):.0%}."
    )
    strips = [
        Strips(caption, [_list(evidence, number) for number in numbers])
        for caption, numbers in (
            ("Worst queries", worst),
            ("Best queries", best[::-1]),
        )
    ]
    return Section("Ranked lists", [Text(text), *strips])


def _in_words(found: Mapping[str, Any]) -> str:
    left_out = found["queries_absent_from_gallery"] + found["queries_matched_by_own_camera_only"]
    text = f"{found['queries']:,} queries are looked for among {found['gallery']:,} gallery images."
    if found.get("source"):
        text += f" Benchmark: {found['source']}."
    if left_out:
        text += f" {left_out:,} queries have no match and are not scored."
    if found["undecodable"]:
        text += f" {found['undecodable']:,} images could not be decoded and are left out."
    return text


def _list(evidence: Evidence, number: int) -> Strip:
    precision = evidence.average_precision[evidence.listed[number]]
    right = evidence.ranked_right[number]
    there = np.isfinite(evidence.ranked_distances[number])
    title = (
        f"person {evidence.listed_people[number]}: average precision {precision:.0%}, "
        f"{np.count_nonzero(right & there)} of the first {np.count_nonzero(there)} right"
    )
    query = Crop(jpeg(load_image(evidence.listed_paths[number])), "Query", "query", "query")
    ranked = []
    for place in np.flatnonzero(there):
        mark, said = ("right", "the same person") if right[place] else ("wrong", "another person")
        source = jpeg(load_image(evidence.ranked_paths[number][place]))
        caption = f"{evidence.ranked_distances[number][place]:.2f}"
        ranked.append(Crop(source, f"Rank {place + 1}, {said}", caption, mark))
    return Strip(title, [query], others=ranked)
