"""Rules by which links become identities, compared on a crawl with known people.

    python -m benchmarks.linking_rules --samples=S.parquet --features=F.npy [--precision=0.92]

For each rule, sigma_drm is that of the highest F1 among thresholds at which the pairwise precision is at or above
`--precision`. `in conflict` counts identities that two tracklets of one frame share; Eq. 5, which moves single images
between tracklets, leaves a few of them under any rule. S needs the columns `frame` and `person`.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from absl import app, flags

from cion_jax.correlation import correlate, pairwise_scores
from cion_jax.correlation.covisible import conflicts, number_frames
from cion_jax.correlation.results import open_features
from cion_jax.correlation.rules import RULES
from cion_jax.samples import SampleTable, read_samples

SIGMAS = np.round(np.arange(0.08, 0.42, 0.01), 2)
NEIGHBORS = (1, 2, 3, 5, 8)


class Row(NamedTuple):
    """One row of the table: a rule at its best threshold."""

    rule: str
    sigma_drm: float
    scores: dict[str, float]
    identities: int
    largest: int
    in_conflict: int


def best(table: SampleTable, features: np.ndarray, precision: float, **rule: object) -> Row | None:
    """The rule at the threshold with the highest F1 among those with the precision; None if there is none."""
    rows = [
        row
        for sigma in SIGMAS
        if (row := measure(table, features, float(sigma), rule)).scores["precision"] >= precision
    ]
    return max(rows, key=lambda row: row.scores["f1"], default=None)


def measure(table: SampleTable, features: np.ndarray, sigma_drm: float, rule: dict) -> Row:
    frames = table["frame"]
    found = correlate(
        features, table.videos, table.tracklets, half_width="all", frames=frames, sigma_drm=sigma_drm, **rule
    ).identities
    return Row(
        " ".join(str(value) for value in rule.values()),
        sigma_drm,
        dataclasses.asdict(pairwise_scores(found, table["person"])),
        int(found.max()) + 1,
        int(np.bincount(found[found >= 0]).max()),
        conflicts(number_frames(table.videos, frames), table.tracklets, found),
    )


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    table = read_samples(values.samples)
    features = open_features(values.features, len(table))
    chosen = [{"rule": rule} for rule in RULES if rule != "mutual"]
    chosen += [{"rule": "mutual", "neighbors": neighbors} for neighbors in NEIGHBORS]
    print("| rule | sigma_drm | precision | recall | F1 | identities | largest | in conflict |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for rule in [*chosen, {"rule": "closure", "forbid_covisible": True}]:
        if row := best(table, features, values.precision, **rule):
            shares = " | ".join(f"{row.scores[name]:.1%}" for name in ("precision", "recall", "f1"))
            counts = f"{row.identities:,} | {row.largest:,} | {row.in_conflict}"
            print(f"| {row.rule} | {row.sigma_drm:.2f} | {shares} | {counts} |", flush=True)
        else:
            print(f"| {rule} | no threshold reaches the precision | | | | | | |", flush=True)


if __name__ == "__main__":
    flags.DEFINE_string("samples", None, "Sample table with frames and people.", required=True)
    flags.DEFINE_string("features", None, "Its features (.npy).", required=True)
    flags.DEFINE_float("precision", 0.92, "Pairwise precision that every rule must reach.")
    app.run(main)
