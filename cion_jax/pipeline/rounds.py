"""Bootstrapped rounds: identities without a labelled extractor.

A round extracts features with a network that saw no labels, adapts them, calibrates both thresholds and correlates;
the next round's network is trained on the identities. Round r is a run of its own in `rounds/<r>`, with the stages
that its config names, so it is resumed and reported like any run.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

from cion_jax.correlation import covisible
from cion_jax.pipeline.workdir import Workdir
from cion_jax.runtime.config import Config
from cion_jax.runtime.files import atomic_path, read_json, write_json
from cion_jax.runtime.progress import console
from cion_jax.samples import SampleTable, read_samples

TRAINED_BY = {"contrastive": "extractor", "distillation": "pretrain"}  # the stage that trains a round's network
CORRELATED = ("extract", "adapt", "calibrate", "correlate")
STARTS = ("tracklet", "image")  # groupings that need no labels; any other start is a file of weights
COLLAPSED = 0.25  # share of the images in one identity
Run = Callable[[Config, Workdir], None]


def run_rounds(config: Config, workdir: Workdir, run: Run) -> None:
    """Runs rounds until they settle, collapse or reach `config.rounds.limit`.

    Afterwards `workdir.correlation` has the identities of the last good round, and `workdir.rounds_report`, written
    last, the record of every round.

    Args:
        config: of the whole run.
        workdir: of the whole run.
        run: runs the stages of a config in a workdir.

    Raises:
        ValueError: a table without frames, or with none that tracklets share; a first round that finds no identities.
    """
    check_frames(read_samples(workdir.samples))
    records: list[dict[str, Any]] = []
    ended = f"limit of {config.rounds.limit} reached"
    if config.rounds.train == "distillation" and config.rounds.start in STARTS:
        run(*_first_training(config, workdir))
    for number in range(config.rounds.limit):
        console.rule(f"Round {number}")
        try:
            run(*round_run(config, workdir, number))
            records.append(_record(config, workdir, number))
            reason = _collapse(records[-1])
        except ValueError as error:
            if not records:
                raise
            reason = str(error)
        if reason:
            if number == 0:
                raise ValueError(f"the first round found no identities to train on: {reason}")
            ended = f"round {number} collapsed: {reason}; the identities of round {number - 1} are kept"
            break
        if len(records) > 1 and settled(records[-2], records[-1], config.rounds):
            ended = f"identities settled in round {number}"
            break
    console.print(f"Rounds ended: {ended}.", markup=False, highlight=False, soft_wrap=True)
    good = records[-1]["round"] if not records[-1]["collapsed"] else records[-2]["round"]
    with atomic_path(workdir.correlation) as temporary:
        shutil.copytree(_root(workdir, good) / workdir.correlation.name, temporary)
    write_json(workdir.rounds_report, {"rounds": records, "good": good, "ended": ended})


def check_frames(table: SampleTable) -> None:
    """Checks that thresholds can be calibrated on a table; raises `ValueError` before anything is trained."""
    if missing := [name for name in ("video", "tracklet", "frame") if name not in table.columns]:
        raise ValueError(
            f"the sample table has no column {', '.join(missing)} (it has {', '.join(table.columns)}): rounds need the "
            "tracklets of each video, and frames to tell which of them show different people"
        )
    frames = covisible.number_frames(table.videos, table["frame"])
    seen = np.unique(np.stack([frames, table.tracklets])[:, frames >= 0], axis=1)[0]
    if not (np.diff(seen) == 0).any():
        raise ValueError(
            "no two tracklets share a frame, so nothing tells different people apart without labels; take videos with "
            "several people in view, or correlate with thresholds of your own"
        )


def round_run(config: Config, workdir: Workdir, number: int) -> tuple[Config, Workdir]:
    """The config and the folder of one round."""
    trains, previous = TRAINED_BY[config.rounds.train], number - 1
    derived = _derived(config, workdir)
    first_by_file = number == 0 and config.rounds.start not in STARTS
    if trains == "extractor" and not first_by_file:
        derived.stages = (trains, *CORRELATED)
        derived.extractor.labelled = str(workdir.samples if number == 0 else _identities(config, workdir, previous))
        derived.extractor.group_by = config.rounds.start if number == 0 else "identity"
    else:
        last = number == config.rounds.limit - 1
        derived.stages = CORRELATED if trains == "extractor" or last else (*CORRELATED, trains)
        derived.extractor.model = config.model
        derived.extractor.weights = config.rounds.start if first_by_file else str(_teacher(config, workdir, previous))
        derived.pretrain.group_by = ("identity",)
    return derived, Workdir(_root(workdir, number), derived)


def settled(before: dict[str, Any], now: dict[str, Any], rounds: Config) -> bool:
    """True if identities agree with those before, and neither their number nor n_S changes by more than a share."""
    changes = [abs(now[name] - before[name]) / max(before[name], 1) for name in ("identities", "noise")]
    return now["agreement"] >= rounds.agreement and max(changes) <= rounds.change


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Adjusted Rand index of two sets of identities `[n]`; a discarded image (-1) is an identity of its own."""
    alone = np.arange(len(one)) + max(one.max(), other.max()) + 1
    return float(adjusted_rand_score(*(np.where(labels < 0, alone, labels) for labels in (one, other))))


def _collapse(record: dict[str, Any]) -> str | None:
    """The reason why a round is of no use, or None."""
    if not record["collapsed"]:
        return None
    return f"{record['identities']:,} identities, the largest with {record['largest']:.0%} of the images"


def _record(config: Config, workdir: Workdir, number: int) -> dict[str, Any]:
    """The numbers of a complete round."""
    folder = round_run(config, workdir, number)[1]
    calibrated, report = read_json(folder.calibration), read_json(folder.correlation_report)
    last = report["levels"][-1]
    if report["background"]["dropped"] and "pairwise" in last:
        last |= {"pairwise": report["background"]["pairwise"]}
    identities = read_samples(folder.identities)["identity"]  # without background, if it is dropped
    before = read_samples(_identities(config, workdir, number - 1))["identity"] if number else None
    kept = identities[identities >= 0]
    largest = float(np.bincount(kept).max() / len(kept)) if len(kept) else 1.0
    names = ("noise", "noise_consistency", "noise_discrimination", "pairwise")
    return {
        "round": number,
        **{name: calibrated[name]["proposed"] for name in ("sigma_cst", "sigma_drm")},
        "support": calibrated["support"],
        **{name: last[name] for name in names if name in last},
        "identities": len(np.unique(kept)),
        "images_discarded": len(identities) - len(kept),
        "largest": largest,
        "agreement": None if before is None else agreement(before, identities),
        "collapsed": len(np.unique(kept)) < 2 or largest > COLLAPSED,
        "seconds": sum(read_json(folder.seconds).values()),
    }


def _first_training(config: Config, workdir: Workdir) -> tuple[Config, Workdir]:
    """The config and the folder of the network that round 0 extracts with, trained by distillation."""
    derived = _derived(config, workdir)
    derived.stages, derived.pretrain.group_by = ("pretrain",), (config.rounds.start,)
    return derived, Workdir(workdir.rounds / "start", derived)


def _derived(config: Config, workdir: Workdir) -> Config:
    derived = config.copy_and_resolve_references()
    derived.data.samples, derived.data.images = str(workdir.samples), str(workdir.images)
    return derived


def _root(workdir: Workdir, number: int) -> Path:
    return workdir.rounds / str(number)


def _identities(config: Config, workdir: Workdir, number: int) -> Path:
    return Workdir(_root(workdir, number), config).identities


def _teacher(config: Config, workdir: Workdir, number: int) -> Path:
    if number < 0:
        derived, folder = _first_training(config, workdir)
        return folder.teacher(derived.pretrain.group_by[0])
    return Workdir(_root(workdir, number), config).teacher("identity")
