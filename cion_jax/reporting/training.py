"""Report section on self-distillation: the loss, and curves that distinguish learning from collapse."""

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
    "loss": _Curve("Loss (Eq. 9)", "nats", "Good: falls below chance and levels off. A jump up is divergence."),
    "kl": _Curve("KL of student from teacher", "nats", "Good: above 0. Near 0, there is nothing left to learn."),
    "teacher_entropy": _Curve(
        "Entropy of the teacher", "nats", "Good: between 0 and uniform. A uniform teacher has no preference (collapse)."
    ),
    "mean_entropy": _Curve(
        "Entropy of the teacher's mean",
        "nats",
        "Good: high, many prototypes in use. Near 0, all images share one.",
    ),
    "feature_std": _Curve(
        "Spread of embeddings",
        "standard deviation",
        "Good: near 'even', all directions in use. Near 0 is collapse.",
    ),
    "images_per_second": _Curve("Speed", "images/s", "Good: steady. Dips are saving or waiting for input."),
}


def training_section(logs: Mapping[str, Log], *, prototypes: int, embed_dim: int) -> Section:
    """Charts the metrics of named runs.

    Args:
        logs: lines of metrics by name of the run.
        prototypes: number of prototypes, the head's output size.
        embed_dim: size of the embeddings.

    Raises:
        ValueError: All logs are empty.
    """
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
    if signs := training_concerns(logs, prototypes=prototypes, embed_dim=embed_dim):
        blocks.append(Warnings(signs))
    return Section("Self-distillation", [*blocks, Pictures(pictures)])


def training_concerns(logs: Mapping[str, Log], *, prototypes: int, embed_dim: int) -> list[str]:
    """Describes signs of collapse at the end of each run."""
    needed = {"loss", "kl", "teacher_entropy", "mean_entropy", "feature_std"}
    messages = []
    for name, log in logs.items():
        if log and needed <= log[-1].keys():
            signs = concerns(log[-1], prototypes=prototypes, embed_dim=embed_dim)
            messages += [f"{name}, {sign}: {advice}." for sign, advice in signs.items()]
    return messages


def _levels(prototypes: int, embed_dim: int) -> dict[str, dict[str, float]]:
    """Reference values of each metric, by their labels."""
    uniform = math.log(prototypes)
    return {
        "loss": {f"chance: ln({prototypes:,})": uniform},
        "teacher_entropy": {"uniform": uniform},
        "mean_entropy": {"uniform": uniform},
        "feature_std": {"even": 1 / math.sqrt(embed_dim)},
    }


def _points(log: Log, metric: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(line["step"], line[metric]) for line in log if metric in line]
    return np.array([step for step, _ in points]), np.array([value for _, value in points])


def _picture(drawn: Mapping[str, tuple[np.ndarray, np.ndarray]], curve: _Curve, marks: dict[str, float]) -> Picture:
    source = lines(drawn, x_label="step", y_label=curve.unit, title=curve.title, marks=marks)
    ends = "; ".join(f"{name}: from {y[0]:.4g} to {y[-1]:.4g}" for name, (_, y) in drawn.items())
    return Picture(source, f"Line chart of {curve.title} in {curve.unit} over training steps. {ends}.", curve.good)


def _in_words(logs: Mapping[str, Any]) -> str:
    runs = ", ".join(f"{name} for {log[-1]['step'] + 1:,.0f} steps" for name, log in logs.items())
    return (
        f"A student network learns to match the output of the teacher, its own moving average, on other views and "
        f"other images of the same identity. Trained: {runs}."
    )
