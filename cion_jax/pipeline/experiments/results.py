"""Summary of an experiment's runs, as JSON and Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cion_jax.pipeline.experiments.catalogue import Experiment
from cion_jax.pipeline.experiments.statistics import CONFIDENCE, Estimate, fit_line, mean

# Retrieval scores that tables and plots show; the JSON has all of every run.
SCORES = {"mAP": "mAP", "rank1": "Rank-1"}
_BEFORE = "mAP_before_finetuning"

Measured = dict[str, Any]


def summarise(
    experiment: Experiment, measured: dict[str, list[Measured]], recipe: dict[str, Any], finetune: str | None = None
) -> dict[str, Any]:
    """The content of the JSON file: every run as `Run.measured` gives it, and estimates over the seeds of a row.

    `measured` has the runs of each row; `recipe` the settings of the config that tables state. A timed experiment has a
    line fitted through all runs, the others a row of the untrained network. `finetune` is the method of fine-tuning, if
    any: then scores are of fine-tuned networks, the untrained one included, and those before it are there as well.
    """
    rows = [_row(row, label, measured[row], experiment.timed) for row, label in experiment.rows.items()]
    runs = [run for some in measured.values() for run in some]
    summary = {
        "experiment": experiment.title,
        "recipe": recipe,
        "finetune": finetune,
        "seeds": sorted({run["seed"] for run in runs}),
        "confidence": CONFIDENCE,
        "rows": rows,
    }
    if experiment.timed:
        line = fit_line([run["images"] / 1000 for run in runs], [run["seconds"] for run in runs])
        fit = {"seconds_per_1000_images": line.slope._asdict(), "seconds_at_no_image": line.intercept}
        return summary | {"fit": fit | {"r_squared": line.r_squared}}
    first = measured[next(iter(experiment.rows))]
    return summary | {"untrained": _scores(first, "untrained")}


def _row(row: str, label: str, runs: list[Measured], timed: bool) -> dict[str, Any]:
    sizes = {name: float(np.mean([run[name] for run in runs])) for name in ("identities", "images", "steps")}
    seconds = {"seconds": mean([run["seconds"] for run in runs])._asdict()}
    scores = {} if timed else _scores(runs, "scores")
    return {"row": row, "label": label} | sizes | seconds | scores | {"runs": runs}


def _scores(runs: list[Measured], which: str) -> dict[str, Any]:
    """Estimates of the scores of `which` network of the runs, and of its mAP before fine-tuning."""
    scores = {name: mean([run[which][name] for run in runs])._asdict() for name in SCORES}
    if all("before_finetuning" in run for run in runs):
        scores[_BEFORE] = mean([run["before_finetuning"][which]["mAP"] for run in runs])._asdict()
    return scores


def markdown(experiment: Experiment, summary: dict[str, Any]) -> str:
    """The summary as a table with what is needed to read it."""
    lines = [f"# {experiment.title}", "", *_table(experiment, summary), ""]
    if experiment.timed:
        lines += [fitted(summary), ""]
    recipe = ", ".join(f"{name} {value}" for name, value in summary["recipe"].items())
    about = _about(experiment, summary["seeds"], summary["finetune"])
    return "\n".join([*lines, about, "", f"Recipe: {recipe}."]) + "\n"


def _table(experiment: Experiment, summary: dict[str, Any]) -> Iterable[str]:
    scores = SCORES | ({_BEFORE: "mAP before"} if summary["finetune"] else {})
    paper = summary.get("paper")
    shown = ["training, s"] if experiment.timed else [*scores.values(), *(["paper"] if paper else [])]
    yield line([experiment.compared, "identities", "images", "steps", *shown])
    yield line(["---"] * (4 + len(shown)))
    if not experiment.timed:
        cells = cells_of(summary["untrained"], scores, percent=True)
        yield line([f"({baseline(summary)})", "", "", "", *cells, *([""] if paper else [])])
    for row in summary["rows"]:
        sizes = [f"{row[name]:,.0f}" for name in ("identities", "images", "steps")]
        cells = cells_of(row, ["seconds"] if experiment.timed else scores, percent=not experiment.timed)
        yield line([row["label"], *sizes, *cells, *([in_paper(paper.get(row["row"]))] if paper else [])])


def in_paper(scores: tuple[float, float] | None) -> str:
    """The paper's mAP and Rank-1, or nothing."""
    return "" if scores is None else f"{scores[0]} / {scores[1]}"


def baseline(summary: dict[str, Any]) -> str:
    """The name of the row of the network that is not pre-trained."""
    return "from scratch" if summary["finetune"] else "untrained"


def cells_of(row: Mapping[str, Any], names: Iterable[str], *, percent: bool) -> list[str]:
    """The estimates of these names in a row, as text."""
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


def _about(experiment: Experiment, seeds: Sequence[int], finetune: str | None) -> str:
    given = ", ".join(map(str, seeds))
    spread = (
        f"Means over seeds {given} ± half of the {CONFIDENCE:.0%} confidence interval (Student's t)."
        if len(seeds) > 1
        else f"One seed ({given}) gives no interval; --seeds=3 does."
    )
    drawn = ", augmentation and which identities are drawn" if "data10" in experiment.rows else " and augmentation"
    varied = f" A seed sets initialisation, batches{drawn}; data and correlation are the same for all."
    if finetune:
        after = (
            f" Retrieval is after fine-tuning ({finetune}), with equal steps in all rows; the last column is before it."
        )
        return spread + varied + after
    return spread + varied + (_TIME if experiment.timed else _SCORED)


_SCORED = " Retrieval is of the pre-trained teacher as it is; the paper fine-tunes first (--finetune)."
_TIME = (
    " Time is of the steps, with compilation, reading of images and checkpoints, on a machine that should have had "
    "nothing else to do; what is paid once a run is what the line has at no image."
)


def line(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
