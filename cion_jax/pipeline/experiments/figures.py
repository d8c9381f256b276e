"""The plots of experiments: scores by row, and time by images."""

import os
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from cion_jax.pipeline.experiments.catalogue import Experiment
from cion_jax.pipeline.experiments.results import SCORES, baseline, fitted
from cion_jax.reporting.figures import new_figure, tidy, write_png

_RUNS = dict(color="gray", s=12, alpha=0.7, zorder=3, label="runs")


def draw(experiment: Experiment, summary: dict[str, Any], out: str | os.PathLike) -> None:
    """Writes the PNG of an experiment's summary: every run, means, and intervals where there are any."""
    if experiment.timed:
        figure = new_figure(7, 4.4)
        _draw_time(figure.add_subplot(), summary)
    else:
        figure = new_figure(5.2 * len(SCORES), 4.2)
        for axes, score in zip(figure.subplots(1, len(SCORES)), SCORES):
            _draw_score(axes, experiment, summary, score)
    figure.suptitle(experiment.title, fontsize=11)
    for axes in figure.axes:
        tidy(axes, legend=True, legend_size=8)
    write_png(figure, out)


def _draw_score(axes: Axes, experiment: Experiment, summary: dict[str, Any], score: str) -> None:
    rows = summary["rows"]
    places = np.arange(len(rows))
    several = len(summary["seeds"]) > 1
    means = [100 * row[score]["value"] for row in rows]
    spread = [100 * row[score]["half_width"] for row in rows] if several else None
    label = "mean, 95 % interval" if several else "one seed"
    style = "o-" if experiment.ordered else "o"
    axes.errorbar(places, means, spread, fmt=style, capsize=4, label=label)
    if several:
        points = [(place, 100 * run["scores"][score]) for place, row in zip(places, rows) for run in row["runs"]]
        axes.scatter(*zip(*points), **_RUNS)
    axes.axhline(100 * summary["untrained"][score]["value"], color="black", ls=":", lw=1, label=baseline(summary))
    turned = 30 if len(rows) > 4 else 0
    axes.set_xticks(places, [row["label"] for row in rows], fontsize=8, rotation=turned)
    axes.margins(x=0.1)
    axes.set(xlabel=experiment.compared, ylabel=f"{SCORES[score]}, %")


def _draw_time(axes: Axes, summary: dict[str, Any]) -> None:
    points = np.asarray([(run["images"], run["seconds"]) for row in summary["rows"] for run in row["runs"]], float)
    fit = summary["fit"]
    ends = np.asarray([0, points[:, 0].max()])
    line = fit["seconds_at_no_image"] + fit["seconds_per_1000_images"]["value"] * ends / 1000
    axes.plot(ends, line, label="least squares")
    axes.scatter(*points.T, **_RUNS)
    axes.set(xlabel="images trained on", ylabel="training, s")
    axes.set_title(fitted(summary), fontsize=8)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
