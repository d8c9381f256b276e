"""Report section "Summary": results in words and headline numbers, and the time of each stage."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cion_jax.reporting.page import Bars, Block, Column, Number, Numbers, Section, Share, Table, Text, Warnings


class Outcome(NamedTuple):
    """The results of a run so far; None for stages that have not run.

    model: name of the pre-trained network. correlation: its `report.json`. scores: by name of the network, in the
    order of a table. before, after: which of these are the untrained network and the one that the run is about.
    seconds: by stage. concerns: signs of collapse. provenance: tables of versions and data, and of settings.
    """

    model: str
    correlation: Mapping[str, Any] | None
    scores: Mapping[str, Mapping[str, Any]] | None
    before: str
    after: str
    seconds: Mapping[str, float]
    concerns: Sequence[str]
    provenance: Sequence[Table]


def summary_section(outcome: Outcome) -> Section:
    """Summarises in words, then in numbers; missing results are omitted, since the page lists them separately."""
    sentences, numbers = [], []
    for words, counts in (_of_correlation(outcome), _of_retrieval(outcome)):
        sentences += words
        numbers += counts
    if not sentences:
        sentences.append(f"This run of {outcome.model} has neither correlated identities nor been evaluated.")
    blocks: list[Block] = [Text(sentence) for sentence in sentences]
    if concerns := [*_warned(outcome.correlation), *outcome.concerns]:
        blocks.append(Warnings(concerns))
    if numbers:
        blocks.append(Numbers(numbers))
    if outcome.seconds:
        blocks.append(_time(outcome.seconds))
    return Section("Summary", [*blocks, *outcome.provenance])


def settings_table(settings: Mapping[str, str]) -> Table:
    """Tabulates every setting of the run, folded."""
    columns = Column("Setting"), Column("Value")
    return Table(f"All {len(settings)} settings", columns, [[*item] for item in sorted(settings.items())], folded=True)


def facts_table(facts: Mapping[str, str]) -> Table:
    """Tabulates versions, fingerprint of the data and the like, folded."""
    columns = Column("Item"), Column("Value")
    return Table("Versions, data and weights", columns, [[*item] for item in facts.items()], folded=True)


def _of_correlation(outcome: Outcome) -> tuple[list[str], list[Number]]:
    if outcome.correlation is None:
        return [], []
    levels = outcome.correlation["levels"]
    first, last = levels[0], levels[-1]
    discarded = last["images_discarded"] / outcome.correlation["images"]
    sentences = [
        f"{outcome.correlation['images']:,} person crops came in {first['identities']:,} tracklets. Correlation found "
        f"that they show {last['identities']:,} identities, and discarded {discarded:.1%} of the crops. The noise n_S, "
        f"which is measured without labels, went from {first['noise']:.2f} to {last['noise']:.2f} per identity."
    ]
    numbers = [
        Number(f"{last['identities']:,}", "identities found", "good: near the number of people filmed"),
        Number(f"{last['noise']:.2f}", "noise n_S per identity", f"good: near 0 (tracklets: {first['noise']:.2f})"),
    ]
    if "pairwise" in last:
        quality = last["pairwise"]
        sentences.append(
            f"True persons are known here and used for scoring only: of the pairs of crops that share an identity, "
            f"{quality['precision']:.1%} show one person, and of all pairs that show one person, "
            f"{quality['recall']:.1%} were found (tracklets alone: {first['pairwise']['recall']:.1%})."
        )
        was = f"tracklets: {first['pairwise']['f1']:.1%}"
        numbers.append(Number(f"{quality['f1']:.1%}", "pairwise F1 of identities", f"good: near 100% ({was})"))
    return sentences, numbers


def _of_retrieval(outcome: Outcome) -> tuple[list[str], list[Number]]:
    if outcome.scores is None or outcome.after not in outcome.scores:
        return [], []
    after = outcome.scores[outcome.after]
    sentence = f"On the benchmark, {outcome.model} reaches mAP {after['mAP']:.1%} and Rank-1 {after['rank1']:.1%} "
    sentence += f"when {outcome.after}"
    others = {name: scores for name, scores in outcome.scores.items() if name != outcome.after}
    if others:
        sentence += "; other networks' mAP: " + ", ".join(
            f"{name} {scores['mAP']:.1%}" for name, scores in others.items()
        )
    numbers = []
    for score, name in (("mAP", "mAP"), ("rank1", "Rank-1")):
        before = outcome.scores.get(outcome.before)
        was = f" ({outcome.before}: {before[score]:.1%})" if before else ""
        numbers.append(Number(f"{after[score]:.1%}", f"{name} on the benchmark", f"good: near 100%{was}"))
    return [f"{sentence}."], numbers


def _warned(correlation: Mapping[str, Any] | None) -> list[str]:
    levels = correlation["levels"] if correlation else []
    return [f"Correlation, level {entry['level']}: {entry['warning']}." for entry in levels if "warning" in entry]


def _time(seconds: Mapping[str, float]) -> Bars:
    longest, total = max(seconds.values()), sum(seconds.values())
    bars = [Share(name, value / max(longest, 1e-9), in_time(value)) for name, value in seconds.items()]
    return Bars(f"Time of each stage, {in_time(total)} in total", bars)


def in_time(seconds: float) -> str:
    """Formats a duration in readable units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"
