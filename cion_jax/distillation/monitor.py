"""Training monitor: metrics, throughput, input wait and warnings."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import jax
import numpy as np

from cion_jax.distillation.loader import Batch
from cion_jax.runtime.metrics import MetricsLog, check_finite
from cion_jax.runtime.processes import all_gather
from cion_jax.runtime.progress import console

# Without a terminal there is no progress bar; one line is printed at most this often.
_LINE_SECONDS = 60.0
UNDECODABLE = "images that cannot be decoded"
# Steps that the host runs ahead of the devices: enough that devices never wait for dispatch, with few batches queued.
_AHEAD = 2


class TrainingMonitor:
    """Accumulates statistics between two log lines, and reports them.

    Args:
        log: receives the metrics.
        batch_size: images of a global batch.
        total_steps: steps of the whole run.
        learning_from: first step at which concerns are reported, the end of the warm-up.
        concerns: signs of collapse or divergence in a line of metrics, as descriptions with remedies by name.
    """

    def __init__(
        self,
        log: MetricsLog,
        *,
        batch_size: int,
        total_steps: int,
        learning_from: int,
        concerns: Callable[[Mapping[str, float]], dict[str, str]],
    ):
        self._log, self._batch_size, self._total_steps = log, batch_size, total_steps
        self._learning_from, self._concerns = learning_from, concerns
        self._reported: set[str] = set()
        self._line_at = time.perf_counter()
        self._reader, self._running = ThreadPoolExecutor(1), deque[Future[float]]()
        self._reset()

    def _reset(self) -> None:
        self._steps, self._replaced, self._waited, self._since = 0, 0, 0.0, time.perf_counter()

    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; time during which the devices are idle until it arrives counts as input wait.

        Raises:
            ValueError: the loss or gradient norm of an earlier step was not finite.
        """
        while len(self._running) > _AHEAD:
            self._running.popleft().result()
        started = time.perf_counter()
        batch = next(batches)
        if all(future.done() for future in self._running):
            done = max((future.result() for future in self._running), default=started)
            self._waited += time.perf_counter() - max(started, done)
        self._steps += 1
        self._replaced += batch.replaced
        return batch

    def started(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Records the time at which `step`, just dispatched, ends."""
        checked = {name: metrics[name] for name in ("loss", "gradient_norm")}
        self._running.append(self._reader.submit(_end, step, checked))

    def report(self, step: int, metrics: Mapping[str, jax.Array]) -> str:
        """Logs metrics, prints warnings, and returns a note for the progress bar.

        `images_per_second` counts the images of all processes; `input_wait` is the fraction of time that devices
        were idle for lack of input, in the process where it is largest.
        """
        values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
        elapsed = time.perf_counter() - self._since
        each = all_gather(np.array([[self._replaced, self._waited / elapsed]], np.float32))
        values["images_per_second"] = self._steps * self._batch_size / elapsed
        values["input_wait"] = float(each[:, 1].max())
        values["undecodable_images"] = float(each[:, 0].sum())
        self._log.write(step, values)
        self._warn(step, values)
        note = (
            f"loss {values['loss']:.3f}, {values['images_per_second']:,.0f} images/s, "
            f"input wait {values['input_wait']:.0%}"
        )
        self._line(step, elapsed / max(self._steps, 1), note)
        self._reset()
        return note

    def _warn(self, step: int, values: Mapping[str, float]) -> None:
        """Prints each concern when it first appears, and not again while it persists."""
        current = self._concerns(values) if step >= self._learning_from else {}
        if values["undecodable_images"] or UNDECODABLE in self._reported:  # reported once
            current[UNDECODABLE] = (
                f"{values['undecodable_images']:.0f} images since the last line, others of their identities take their "
                f"places; `python -m cion_jax.samples.doctor` names all"
            )
        for name in current.keys() - self._reported:
            console.print(f"[yellow]Step {step}, {name}:[/] {current[name]}.", highlight=False, soft_wrap=True)
        self._reported = set(current)

    def _line(self, step: int, seconds_per_step: float, note: str) -> None:
        now = time.perf_counter()
        if console.is_terminal or now - self._line_at < _LINE_SECONDS:
            return
        left = timedelta(seconds=round((self._total_steps - step - 1) * seconds_per_step))
        console.print(f"step {step + 1:,} of {self._total_steps:,}, {note}, {left} left", highlight=False)
        self._line_at = now


def _end(step: int, metrics: Mapping[str, jax.Array]) -> float:
    """Waits for the metrics of a step and returns the time (s) of their arrival; ValueError if one is not finite."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    ended = time.perf_counter()
    check_finite(step, values)
    return ended
