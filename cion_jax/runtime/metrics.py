"""Training metrics as JSON lines, one object per logged step, and in TensorBoard if it is installed."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from cion_jax.runtime.files import atomic_path
from cion_jax.runtime.processes import is_primary


class MetricsLog:
    """Appends metrics to `path`; on a restart, lines from `first_step` on are dropped first.

    If tensorboardX is installed, the same values go to the folder `tensorboard` next to `path`. Only the primary
    process writes; all processes check for non-finite values.
    """

    def __init__(self, path: str | Path, *, first_step: int):
        self._file, self._board = None, None
        if is_primary():
            self._file = _continued(Path(path), first_step)
            self._board = _tensorboard(Path(path).parent / "tensorboard", first_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in (self._file, self._board):
            if writer is not None:
                writer.close()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs one line of metrics.

        Raises:
            ValueError: A value is not finite; the message names the metric and the step.
            OSError: The line cannot be written.
        """
        check_finite(step, metrics)
        if self._file is not None:
            try:
                self._file.write(json.dumps({"step": step, **metrics}) + "\n")
                self._file.flush()
            except OSError as error:
                raise OSError(
                    f"{self._file.name}: no line can be written ({error.strerror}). Make room, and the same command "
                    f"continues from the last checkpoint"
                ) from error
        if self._board is not None:
            for name, value in metrics.items():
                self._board.add_scalar(name, value, step)


def check_finite(step: int, metrics: Mapping[str, float]) -> None:
    """Raises a `ValueError` that names the step and the first metric that is infinite or NaN."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(
                f"{name} is {value} at step {step}: training diverged. The last checkpoint is intact; continue "
                f"from it with a lower learning rate, a longer warm-up or a smaller teacher temperature"
            )


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """Returns all complete lines of a metrics file, or none if it does not exist; skips a truncated last line."""
    if not Path(path).exists():
        return []
    lines = Path(path).read_text().split("\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: a line is no JSON ({error.doc!r:.80}); remove it, or the file") from error


def _continued(path: Path, first_step: int) -> Any:
    """Drops all lines from `first_step` on and returns the file, open for appending."""
    kept = [line for line in read_metrics(path) if line["step"] < first_step]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
    return path.open("a")


def _tensorboard(folder: Path, first_step: int) -> Any:
    """Returns a writer that purges earlier events from `first_step` on, or None without tensorboardX."""
    try:
        from tensorboardX import SummaryWriter  # optional, and slow to import: it looks for PyTorch
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first_step)
