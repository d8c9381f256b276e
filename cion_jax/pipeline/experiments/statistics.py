"""Statistics of a few repetitions: a mean and a least-squares line, each with a confidence interval."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A value and half the width of its 95 % confidence interval; None where too few data give none."""

    value: float
    half_width: float | None


class Line(NamedTuple):
    """`y = slope x + intercept`, and the share R^2 of the variance of y that it explains."""

    slope: Estimate
    intercept: float
    r_squared: float


def mean(values: Sequence[float]) -> Estimate:
    """The mean of n values, plus or minus `t(n - 1) s / sqrt(n)`.

    s is the standard deviation with n - 1 degrees of freedom, t the two-sided 95 % quantile of Student's distribution.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to average")
    spread = None if n == 1 else _quantile(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Estimate(float(np.mean(values)), spread)


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Least squares. The interval of the slope is `t(n - 2) sqrt(SS_residual / (n - 2) / SS_x)`, from n = 3 on.

    R^2 = 1 - SS_residual / SS_y. Raises ValueError for fewer than two different x.
    """
    centered_x, centered_y = np.asarray(x, float) - np.mean(x), np.asarray(y, float) - np.mean(y)
    squares_x, squares_y = float(centered_x @ centered_x), float(centered_y @ centered_y)
    if len(set(x)) < 2:
        raise ValueError(f"a line needs points at two x or more, got {len(x)} at {sorted(set(x))}")
    slope = float(centered_x @ centered_y) / squares_x
    residual = centered_y - slope * centered_x
    unexplained, free = float(residual @ residual), len(x) - 2
    spread = _quantile(free) * math.sqrt(unexplained / free / squares_x) if free else None
    r_squared = 1 - unexplained / squares_y if squares_y else 1.0  # a level line through level points
    return Line(Estimate(slope, spread), float(np.mean(y) - slope * np.mean(x)), r_squared)


def _quantile(degrees_of_freedom: int) -> float:
    return float(stdtrit(degrees_of_freedom, (1 + CONFIDENCE) / 2))
