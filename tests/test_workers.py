"""Processes that work for this one: what happens when one of them dies, and when the work fails."""

import os
import signal

import pytest

from cion_jax.runtime.workers import Died, apart


def square(number: int) -> int:
    if number == 2:
        os._exit(7)
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 100:
        raise ValueError("a hundred is too much")
    return number * number


def test_a_process_that_dies_costs_its_item_only():
    results = dict(apart(square, range(8), 2))
    expected = {number: number * number for number in range(8)} | {2: Died(7), 5: Died(-9)}
    assert results == expected
    assert str(results[5]) == "its process was ended by signal 9"
    assert list(apart(square, [], 2)) == []


def test_what_fails_there_fails_here_with_where_it_was():
    with pytest.raises(ValueError, match="too much") as raised:
        list(apart(square, [1, 100, 3], 1))
    assert "in square" in raised.value.__notes__[0]
