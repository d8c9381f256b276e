"""The section on self-distillation: loss, and the curves by which collapse is told from learning."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cion_jax.distillation.health import concerns
from cion_jax.reporting.drawing import lines
from cion_jax.reporting.page import Block, Picture, Pictures, Section, Text, Warnings

Log = Sequence[Mapping[str, float]]


class _Curve(NamedTuple):
    """Title and unit of a metric's curve, and a note on how to read it."""

    title: str
    unit: str
    good: str


_CURVES = {
    "loss": _Curve("Loss (Eq. 9)", "nats", "Falls below chance and levels off; a jump up is divergence."),
    "kl": _Curve(
        "KL of student from teacher", "nats", "Above 0 while there is something to learn; near 0, nothing is left."
    ),
    "teacher_entropy": _Curve(
        "Entropy of the teacher", "nats", "Between 0 and uniform: at uniform the teacher prefers nothing (collapse)."
    ),
    "mean_entropy": _Curve(
        "Entropy of the teacher's mean", "nats", "High: many prototypes are in use. Near 0, all images share one."
    ),
    "feature_std": _Curve(
        "Spread of embeddings", "standard deviation", "Near 'even', embeddings use all directions; near 0 is collapse."
    ),
    "images_per_second": _Curve("Speed", "images/s", "Steady: dips are saving, or input that is late."),
}


def training_section(logs: Mapping[str, Log], *, prototypes: int, embed_dim: int) -> Section:
    """From the metrics of named runs, with the size of the head's output and of the embeddings."""
    logs = {name: log for name, log in logs.items() if log}
    if not logs:
        raise ValueError("no metrics of a pre-training run are there")
    levels = _levels(prototypes, embed_dim)
    pictures = []
    for metric, curve in _CURVES.items():
        drawn = {name: _points(log, metric) for name, log in logs.items() if metric in log[-1]}
        if drawn:
            pictures.append(_picture(drawn, curve, levels.get(metric, {})))
    blocks: list[Block] = [Text(_in_words(logs))]
    if found := training_concerns(logs, prototypes=prototypes, embed_dim=embed_dim):
        blocks.append(Warnings(found))
    return Section("Self-distillation", [*blocks, Pictures(pictures)])


def training_concerns(logs: Mapping[str, Log], *, prototypes: int, embed_dim: int) -> list[str]:
    """Signs of collapse at the end of each run, in words."""
    needed = {"loss", "kl", "teacher_entropy", "mean_entropy", "feature_std"}
    found = []
    for name, log in logs.items():
        if log and needed <= log[-1].keys():
            signs = concerns(log[-1], prototypes=prototypes, embed_dim=embed_dim)
            found += [f"{name}, {sign}: {advice}." for sign, advice in signs.items()]
    return found


def _levels(prototypes: int, embed_dim: int) -> dict[str, dict[str, float]]:
    """Values that curves are held against."""
    uniform = math.log(prototypes)
    return {
        "loss": {f"chance: ln({prototypes:,})": uniform},
        "teacher_entropy": {"uniform": uniform},
        "mean_entropy": {"uniform": uniform},
        "feature_std": {"even": 1 / math.sqrt(embed_dim)},
    }


def _points(log: Log, metric: str) -> tuple[np.ndarray, np.ndarray]:
    found = [(line["step"], line[metric]) for line in log if metric in line]
    return np.array([step for step, _ in found]), np.array([value for _, value in found])


def _picture(drawn: Mapping[str, tuple[np.ndarray, np.ndarray]], curve: _Curve, marks: dict[str, float]) -> Picture:
    source = lines(drawn, x_label="step", y_label=curve.unit, title=curve.title, marks=marks)
    ends = "; ".join(f"{name}: from {y[0]:.4g} to {y[-1]:.4g}" for name, (_, y) in drawn.items())
    return Picture(source, f"Line chart of {curve.title} in {curve.unit} over training steps. {ends}.", curve.good)


def _in_words(logs: Mapping[str, Any]) -> str:
    runs = ", ".join(f"{name} for {log[-1]['step'] + 1:,.0f} steps" for name, log in logs.items())
    return (
        f"A student network learns to give what its own slowly moving average, the teacher, gives for other views and "
        f"other images of one identity. Trained: {runs}."
    )
