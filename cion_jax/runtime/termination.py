"""SIGTERM handling: schedulers send it before they reclaim a machine, and the run then saves and stops."""

import signal
from types import FrameType
from typing import Self

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 143  # 128 + SIGTERM, the exit code that a shell reports for a program ended by SIGTERM


class Terminated(Exception):
    """Raised when the run was asked to stop and has saved its state. The message says up to which step."""


class Termination:
    """Records whether SIGTERM was received; a context manager.

    With several processes, JAX handles the signal in each of them and makes all stop after the same step.
    """

    def __init__(self) -> None:
        self._asked = False

    def __enter__(self) -> Self:
        if not jax.distributed.is_initialized():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if not jax.distributed.is_initialized():
            signal.signal(signal.SIGTERM, self._before)

    def asked(self, step: int) -> bool:
        """True if the run should save and stop after `step`; all processes must call this after every step."""
        return self._asked or multihost_utils.reached_preemption_sync_point(step)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked = True
