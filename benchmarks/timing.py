"""Seconds of compiled functions."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Part:
    """A jitted function and its arguments; `donates` if the first argument is given back as the first result."""

    function: Any
    arguments: tuple
    donates: bool = False

    @functools.cached_property
    def compiled(self) -> Any:
        return self.function.lower(*self.arguments).compile()

    def seconds(self, repeats: int) -> float:
        """The shortest of some runs, after one that compiles."""
        arguments, shortest = list(self.arguments), float("inf")
        for index in range(repeats + 1):
            started = time.perf_counter()
            result = jax.block_until_ready(self.compiled(*arguments))
            if index:
                shortest = min(shortest, time.perf_counter() - started)
            if self.donates:
                arguments[0] = result[0]
        return shortest


def peer_rows(seconds: Mapping[str, float | str], ours: float) -> list[tuple[str, str]]:
    """Table rows of PyTorch's seconds of a step, or why there are none, beside ours."""
    rows = []
    for name, value in seconds.items():
        text = value if isinstance(value, str) else f"{1e3 * value:.1f} ({value / ours:.2f})"
        rows.append((f"PyTorch {name}, ms (x ours)", text))
    return rows
