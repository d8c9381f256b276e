"""The loop around a training step: batches, metrics, checkpoints, and stopping when asked to."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import jax

from cion_jax.distillation.loader import Batch
from cion_jax.distillation.monitor import TrainingMonitor
from cion_jax.runtime.checkpoints import Checkpoints
from cion_jax.runtime.termination import Termination


class _Stepped(Protocol):
    """A dataclass of arrays with the number of steps done."""

    @property
    def step(self) -> Any: ...


State = TypeVar("State", bound=_Stepped)
Step = Callable[[State, Any], tuple[State, dict[str, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class Loop:
    """Everything around the steps of a run.

    Attributes:
        monitor: receives batches and metrics.
        checkpoints: where the state is saved, with `meta`: every `save_every` steps, at the end, and when stopped.
        meta: dictionary stored with every checkpoint.
        termination: says whether to stop.
        ship: this process's part of a batch -> the global batch on the devices.
        advance: of the progress bar.
        total_steps: steps of the whole run.
        log_every, save_every: steps between two lines of metrics and between two checkpoints.
    """

    monitor: TrainingMonitor
    checkpoints: Checkpoints
    meta: dict[str, Any]
    termination: Termination
    ship: Callable[[Batch], Any]
    advance: Callable[..., None]
    total_steps: int
    log_every: int
    save_every: int

    def run(self, state: State, end_step: int, step_function: Step, batches: Iterator[Batch]) -> State:
        """Trains from the state's step to `end_step`.

        Raises:
            Terminated: SIGTERM or Ctrl-C came; the state is saved.
            ValueError: divergence.
        """
        step = int(state.step)
        while step < end_step:
            state, metrics = step_function(state, self.ship(self.monitor.next_batch(batches)))
            self.monitor.started(step, metrics)
            step += 1
            asked = self.termination.asked(step)
            save = asked or step == self.total_steps or step % self.save_every == 0
            if save or step % self.log_every == 0:
                self.advance(0, note=self.monitor.report(step - 1, metrics))
            if save:
                self.checkpoints.save(step, vars(state), self.meta)
            self.advance(1)
            if asked and step < self.total_steps:
                self.termination.stop(f"step {step} of {self.total_steps} is saved; the same command continues from it")
        return state
