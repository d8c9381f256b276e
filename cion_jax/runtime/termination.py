"""SIGTERM and Ctrl-C: a training run saves and stops. Schedulers send SIGTERM before they reclaim a machine."""

import os
import signal
from types import FrameType
from typing import NoReturn, Self

import jax
from jax.experimental import multihost_utils


class Terminated(Exception):
    """Raised when the run was asked to stop and has saved its state. The message says up to which step.

    `signal` is the one that asked.
    """

    def __init__(self, message: str, by: signal.Signals = signal.SIGTERM):
        super().__init__(message)
        self.signal = by

    @property
    def exit_code(self) -> int:
        """The exit code that a shell reports for a program ended by the signal: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.signal


class Termination:
    """Records whether the run was asked to stop; a context manager.

    In a single process, SIGTERM or Ctrl-C asks; a second Ctrl-C ends the process at once. With several processes, JAX
    handles SIGTERM in each of them and makes all stop after the same step; Ctrl-C ends them without saving
    (`launch/local.sh` turns it into SIGTERM).
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __enter__(self) -> Self:
        if not jax.distributed.is_initialized():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        if not jax.distributed.is_initialized():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def asked(self, step: int) -> bool:
        """True if the run should save and stop after `step`; all processes must call this after every step."""
        if self.signal is None and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal is not None

    def stop(self, message: str) -> NoReturn:
        """Raises `Terminated` for the signal that asked."""
        raise Terminated(message, self.signal or signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = signal.Signals(number)
        if number == signal.SIGINT:
            end_at_next_interrupt()
            # Not through the console or sys.stderr, which the signal may have interrupted in the middle of a write.
            os.write(2, b"\nSaving after this step; Ctrl-C again ends at once, without saving.\n")


def interrupt_once() -> None:
    """Makes Ctrl-C raise `KeyboardInterrupt` once and end the process at once, without traceback, after that."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        end_at_next_interrupt()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


def end_at_next_interrupt() -> None:
    """Restores the system's own reaction to Ctrl-C, which works in the middle of compiled code too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
