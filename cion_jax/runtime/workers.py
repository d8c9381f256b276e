"""Processes on this machine that work for this one."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def spawned_pool(workers: int) -> ProcessPoolExecutor:
    """Processes that end with this one, however it ends; call it under `if __name__ == "__main__":`.

    They are spawned, not forked: a forked process would inherit the threads' locks of an initialised JAX.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent)


class Died(NamedTuple):
    """A process that ended in the middle of its work: a crash in compiled code, or killed for memory."""

    exit_code: int | None

    def __str__(self) -> str:
        if self.exit_code is not None and self.exit_code < 0:
            return f"its process was ended by signal {-self.exit_code}"
        return f"its process ended with code {self.exit_code}"


class _News(NamedTuple):
    """A message that a worker sends before its result."""

    value: Any


def apart(
    function: Callable[[Item, Callable[[Any], None]], Result],
    items: Sequence[Item],
    workers: int,
    hear: Callable[[Any], None] = lambda news: None,
) -> Iterator[tuple[Item, Result | Died]]:
    """Calls `function(item, tell)` for every item in `workers` other processes; gives each item with its result.

    What is done first comes first. `hear` is called here with what `function` tells there. An item whose process dies
    is answered by `Died`, and a new process goes on with the others. What `function` raises is raised here and ends
    all. Call it under `if __name__ == "__main__":`, with what can be pickled.
    """
    waiting = deque(items)
    busy: dict[Connection, tuple[_Worker[Item, Result], Item]] = {}
    try:
        for _ in range(min(workers, len(waiting))):
            _start(_Worker(function), waiting, busy)
        while busy:
            for pipe in wait(list(busy)):
                worker, item = busy[pipe]  # type: ignore[index]
                answer = worker.answer()
                if isinstance(answer, _News):
                    hear(answer.value)
                    continue
                del busy[worker.pipe]
                yield item, answer
                _start(_Worker(function) if isinstance(answer, Died) else worker, waiting, busy)
    finally:
        for worker, _ in busy.values():
            worker.process.terminate()


class _Worker(Generic[Item, Result]):
    """A process that takes one item after the other, until its pipe is closed."""

    def __init__(self, function: Callable[[Item, Callable[[Any], None]], Result]):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()  # or nobody would notice that the process has died

    def answer(self) -> Result | Died | _News:
        try:
            result, error = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return Died(self.process.exitcode)
        if error is not None:
            raise error
        return result


def _start(worker: _Worker, waiting: deque, busy: dict) -> None:
    if waiting:
        item = waiting.popleft()
        worker.pipe.send(item)
        busy[worker.pipe] = worker, item
    else:
        worker.pipe.close()


def _serve(pipe: Connection, function: Callable) -> None:
    _follow_parent()

    def tell(news: Any) -> None:
        pipe.send((_News(news), None))

    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((function(item, tell), None))
        except Exception as error:
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
            pipe.send((None, error))


def _follow_parent() -> None:
    """Ties a worker's life to its parent's.

    Ctrl-C is the parent's to handle; and when that is killed, nobody may go on writing into a folder that its next
    run removes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_and_leave() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_and_leave, daemon=True).start()
