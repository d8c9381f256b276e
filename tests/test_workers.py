"""Processes that work for this one: what they tell, and when one of them dies or fails."""

import os
import signal
from collections.abc import Callable

import pytest

from cion_jax.runtime.workers import Died, apart


def square(number: int, tell: Callable[[int], None]) -> int:
    tell(-number)
    if number == 2:
        os._exit(7)
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 100:
        raise ValueError("a hundred is too much")
    return number * number


def test_a_process_that_dies_costs_its_item_only():
    heard = []
    results = dict(apart(square, range(8), 2, heard.append))
    expected = {number: number * number for number in range(8)} | {2: Died(7), 5: Died(-9)}
    assert results == expected
    assert str(results[5]) == "its process was ended by signal 9"
    assert sorted(heard) == list(range(-7, 1))
    assert list(apart(square, [], 2)) == []


def test_what_fails_there_fails_here_with_where_it_was():
    with pytest.raises(ValueError, match="too much") as raised:
        list(apart(square, [1, 100, 3], 1))
    assert "in square" in raised.value.__notes__[0]
