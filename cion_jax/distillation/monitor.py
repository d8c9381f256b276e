"""Training monitor: metrics, throughput, input wait and warnings."""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import jax
import numpy as np

from cion_jax.distillation.health import concerns
from cion_jax.distillation.loader import Batch
from cion_jax.runtime.metrics import MetricsLog, check_finite
from cion_jax.runtime.processes import all_gather
from cion_jax.runtime.progress import console

# Off a terminal there is no bar to look at; a job's output gets a line at most this often.
_LINE_SECONDS = 60.0
UNDECODABLE = "images that cannot be decoded"
# Steps that the host is ahead of the devices: the next one is ready when one ends, and few batches wait on the device.
_AHEAD = 2


class Watch:
    """Collects what happens between two log lines.

    Args:
        log: where lines go.
        batch_size: images of a global batch.
        total_steps: of the whole run.
        learning_from: first step at which a sign of collapse counts, the end of the warm-up.
        prototypes: outputs of the head.
        embed_dim: dimension of the embeddings.
    """

    def __init__(
        self,
        log: MetricsLog,
        *,
        batch_size: int,
        total_steps: int,
        learning_from: int,
        prototypes: int,
        embed_dim: int,
    ):
        self._log, self._batch_size, self._total_steps = log, batch_size, total_steps
        self._learning_from, self._sizes = learning_from, {"prototypes": prototypes, "embed_dim": embed_dim}
        self._known: set[str] = set()
        self._line_at = time.perf_counter()
        self._reader, self._running = ThreadPoolExecutor(1), deque[Future[float]]()
        self._reset()

    def _reset(self) -> None:
        self._steps, self._replaced, self._waited, self._since = 0, 0, 0.0, time.perf_counter()

    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """The next batch. Where the devices were done before it came, the time since then is time that they waited.

        Raises ValueError if a step before was not finite.
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
        """Has it noted when `step`, which was just dispatched, ends."""
        seen = {name: metrics[name] for name in ("loss", "gradient_norm")}
        self._running.append(self._reader.submit(_end, step, seen))

    def report(self, step: int, metrics: Mapping[str, jax.Array]) -> str:
        """Writes a line of metrics, says what is wrong, and returns a note for the progress bar.

        `images_per_second` is of all processes; `input_wait` is the fraction of time that the process whose input
        is slowest waited for it.
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
        """A concern is told when it comes up, not again while it lasts."""
        found = concerns(values, **self._sizes) if step >= self._learning_from else {}
        if values["undecodable_images"] or UNDECODABLE in self._known:  # told once
            found[UNDECODABLE] = (
                f"{values['undecodable_images']:.0f} images since the last line, others of their identities take their "
                f"places; `python -m cion_jax.samples.doctor` names all"
            )
        for name in found.keys() - self._known:
            console.print(f"[yellow]Step {step}, {name}:[/] {found[name]}.", highlight=False, soft_wrap=True)
        self._known = set(found)

    def _line(self, step: int, seconds_per_step: float, note: str) -> None:
        now = time.perf_counter()
        if console.is_terminal or now - self._line_at < _LINE_SECONDS:
            return
        left = timedelta(seconds=round((self._total_steps - step - 1) * seconds_per_step))
        console.print(f"step {step + 1:,} of {self._total_steps:,}, {note}, {left} left", highlight=False)
        self._line_at = now


def _end(step: int, metrics: Mapping[str, jax.Array]) -> float:
    """Waits for these metrics; the time at which they were there. Raises ValueError where one is not finite."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    ended = time.perf_counter()
    check_finite(step, values)
    return ended
