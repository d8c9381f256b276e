"""Summary of an experiment's runs, as JSON and Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cion_jax.pipeline.experiments.catalogue import Experiment
from cion_jax.pipeline.experiments.statistics import CONFIDENCE, Estimate, fit_line, mean

# Retrieval scores that tables and plots show; the JSON has all of every run.
SCORES = {"mAP": "mAP", "rank1": "Rank-1"}

Measured = dict[str, Any]


def summarise(experiment: Experiment, measured: dict[str, list[Measured]], recipe: dict[str, Any]) -> dict[str, Any]:
    """The content of the JSON file: every run as `Run.measured` gives it, and estimates over the seeds of a row.

    `measured` has the runs of each row; `recipe` is what is told of the config. A timed experiment has a line fitted
    through all runs, scored ones a row of the untrained network.
    """
    rows = [_row(row, label, measured[row], experiment.timed) for row, label in experiment.rows.items()]
    runs = [run for some in measured.values() for run in some]
    summary = {
        "experiment": experiment.title,
        "recipe": recipe,
        "seeds": sorted({run["seed"] for run in runs}),
        "confidence": CONFIDENCE,
        "rows": rows,
    }
    if experiment.timed:
        line = fit_line([run["images"] / 1000 for run in runs], [run["seconds"] for run in runs])
        fit = {"seconds_per_1000_images": line.slope._asdict(), "seconds_at_no_image": line.intercept}
        return summary | {"fit": fit | {"r_squared": line.r_squared}}
    first = measured[next(iter(experiment.rows))]
    return summary | {"untrained": _scores([run["untrained"] for run in first])}


def _row(row: str, label: str, runs: list[Measured], timed: bool) -> dict[str, Any]:
    sizes = {name: float(np.mean([run[name] for run in runs])) for name in ("identities", "images", "steps")}
    seconds = {"seconds": mean([run["seconds"] for run in runs])._asdict()}
    scores = {} if timed else _scores([run["scores"] for run in runs])
    return {"row": row, "label": label} | sizes | seconds | scores | {"runs": runs}


def _scores(runs: list[dict[str, float]]) -> dict[str, Any]:
    return {name: mean([scores[name] for scores in runs])._asdict() for name in SCORES}


def markdown(experiment: Experiment, summary: dict[str, Any]) -> str:
    """The summary as a table with what is needed to read it."""
    lines = [f"# {experiment.title}", "", *_table(experiment, summary), ""]
    if experiment.timed:
        lines += [fitted(summary), ""]
    recipe = ", ".join(f"{name} {value}" for name, value in summary["recipe"].items())
    return "\n".join([*lines, _about(experiment, summary["seeds"]), "", f"Recipe: {recipe}."]) + "\n"


def _table(experiment: Experiment, summary: dict[str, Any]) -> Iterable[str]:
    shown = ["training, s"] if experiment.timed else list(SCORES.values())
    yield _line([experiment.compared, "identities", "images", "steps", *shown])
    yield _line(["---"] * (4 + len(shown)))
    if not experiment.timed:
        yield _line(["(untrained)", "", "", "", *_cells(summary["untrained"], SCORES, percent=True)])
    for row in summary["rows"]:
        sizes = [f"{row[name]:,.0f}" for name in ("identities", "images", "steps")]
        cells = _cells(row, ["seconds"] if experiment.timed else SCORES, percent=not experiment.timed)
        yield _line([row["label"], *sizes, *cells])


def _cells(row: dict[str, Any], names: Iterable[str], *, percent: bool) -> list[str]:
    return [written(Estimate(**row[name]), percent=percent) for name in names]


def written(estimate: Estimate, *, percent: bool) -> str:
    factor, unit = (100, " %") if percent else (1, "")
    spread = "" if estimate.half_width is None else f" ± {factor * estimate.half_width:,.1f}"
    return f"{factor * estimate.value:,.1f}{spread}{unit}"


def fitted(summary: dict[str, Any]) -> str:
    """The line through all runs, in words."""
    fit = summary["fit"]
    slope, spread = fit["seconds_per_1000_images"].values()
    interval = "" if spread is None else f" ± {spread:.2g}"
    return (
        f"Least squares over all runs: {slope:.4g}{interval} s for every 1,000 images, "
        f"{fit['seconds_at_no_image']:,.1f} s at no image, R² = {fit['r_squared']:.4f}."
    )


def _about(experiment: Experiment, seeds: Sequence[int]) -> str:
    given = ", ".join(map(str, seeds))
    spread = (
        f"Means over seeds {given} ± half of the {CONFIDENCE:.0%} confidence interval (Student's t)."
        if len(seeds) > 1
        else f"One seed ({given}) tells no interval of a row; --seeds=3 gives one."
    )
    drawn = ", augmentation and which identities are drawn" if "data10" in experiment.rows else " and augmentation"
    varied = f" A seed sets initialisation, batches{drawn}; data and correlation are the same for all."
    return spread + varied + (_TIME if experiment.timed else _SCORED)


_SCORED = " Retrieval is of the pre-trained teacher as it is; the paper fine-tunes first, so its numbers are higher."
_TIME = (
    " Time is of the steps, with compilation, reading of images and checkpoints, on a machine that should have had "
    "nothing else to do; what is paid once a run is what the line has at no image."
)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
