"""SIGTERM, which schedulers send before they take a machine away: the run saves where it is and says so."""

import signal
from types import FrameType
from typing import Self

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 143  # 128 + SIGTERM: what a shell reports of a program that SIGTERM ended


class Terminated(Exception):
    """The run was asked to stop, and everything is saved. The message says up to where."""


class Termination:
    """Whether SIGTERM came. Use it in a `with` statement.

    With several processes, JAX listens to the signal in each of them, and tells all to stop after the same step.
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
        """Whether to save and stop after `step`; to be called after every step, by all processes."""
        return self._asked or multihost_utils.reached_preemption_sync_point(step)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked = True
