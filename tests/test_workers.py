"""Worker processes: their messages, and what happens when one of them dies or fails."""

import os
import signal
from collections.abc import Callable

import pytest

from cion_jax.runtime.workers import Died, run_in_workers


def square(number: int, send: Callable[[int], None]) -> int:
    send(-number)
    if number == 2:
        os._exit(7)
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 100:
        raise ValueError("a hundred is too much")
    return number * number


def test_a_process_that_dies_loses_only_its_item():
    messages = []
    results = dict(run_in_workers(square, range(8), 2, messages.append))
    expected = {number: number * number for number in range(8)} | {2: Died(7), 5: Died(-9)}
    assert results == expected
    assert str(results[5]) == "its process was ended by signal 9"
    assert sorted(messages) == list(range(-7, 1))
    assert list(run_in_workers(square, [], 2)) == []


def test_an_exception_in_a_worker_is_raised_here_with_its_traceback():
    with pytest.raises(ValueError, match="too much") as raised:
        list(run_in_workers(square, [1, 100, 3], 1))
    assert "in square" in raised.value.__notes__[0]
