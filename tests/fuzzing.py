"""Repetition of Hypothesis tests: one round in the suite, as many as fit in `--fuzz-seconds=N` of a long run."""

import itertools
import time
from collections.abc import Callable

import hypothesis

# Files are written for every example, so the first call may be slow; nothing is kept between runs.
SHORT = hypothesis.settings(max_examples=100, deadline=None, database=None)


def repeat(check: Callable[[], None], seconds: float) -> None:
    """Runs `check`, decorated with `@SHORT` and `@given`, with the seeds 0, 1, 2, ... for `seconds`, at least once."""
    end = time.monotonic() + seconds
    for number in itertools.count():
        hypothesis.seed(number)(check)()
        if time.monotonic() >= end:
            return
