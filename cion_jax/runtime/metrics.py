"""A run's metrics as JSON lines, one object per logged step."""

import json
import math
from pathlib import Path
from typing import Self

from cion_jax.runtime.files import atomic_path


class MetricsLog:
    """Appends to `path`; on a restart, lines of steps that will be done again are dropped first."""

    def __init__(self, path: str | Path, *, first_step: int):
        self._path = Path(path)
        kept = [line for line in read_metrics(self._path) if line["step"] < first_step]
        with atomic_path(self._path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = self._path.open("a")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Logs one line. A value that is not finite is a `ValueError` that names the metric and the step."""
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"{name} is {value} at step {step}: training diverged. The last checkpoint is intact; continue "
                    f"from it with a lower learning rate, a longer warm-up or a smaller teacher temperature"
                )
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """All complete lines of a metrics file; none if there is no file. A line cut off by a kill is left out."""
    if not Path(path).exists():
        return []
    lines = Path(path).read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]
