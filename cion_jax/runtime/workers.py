"""Worker processes on this machine."""

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
    """A process pool that ends with this process, however it ends; call it under `if __name__ == "__main__":`.

    Workers are spawned, not forked: a forked process would inherit the locks held by threads of an initialised JAX.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent)


class Died(NamedTuple):
    """Result of an item whose process ended abnormally: a crash in compiled code, or killed for lack of memory."""

    exit_code: int | None

    def __str__(self) -> str:
        if self.exit_code is not None and self.exit_code < 0:
            return f"its process was ended by signal {-self.exit_code}"
        return f"its process ended with code {self.exit_code}"


class _Message(NamedTuple):
    """An intermediate message from a worker, sent before its result."""

    value: Any


def run_in_workers(
    function: Callable[[Item, Callable[[Any], None]], Result],
    items: Sequence[Item],
    workers: int,
    on_message: Callable[[Any], None] = lambda message: None,
) -> Iterator[tuple[Item, Result | Died]]:
    """Calls `function(item, send)` for every item in `workers` processes; yields each item with its result.

    Results come in order of completion. `on_message` is called in this process with every value that `function`
    passes to `send`. If a process dies, its item gets `Died` as its result, and a new process takes over the
    remaining items. An exception in `function` is re-raised here and stops all workers. Call it under
    `if __name__ == "__main__":`; function, items and results must be picklable.
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
                if isinstance(answer, _Message):
                    on_message(answer.value)
                    continue
                del busy[worker.pipe]
                yield item, answer
                _start(_Worker(function) if isinstance(answer, Died) else worker, waiting, busy)
    finally:
        for worker, _ in busy.values():
            worker.process.terminate()


class _Worker(Generic[Item, Result]):
    """A process that handles one item after another until its pipe is closed."""

    def __init__(self, function: Callable[[Item, Callable[[Any], None]], Result]):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()  # otherwise the death of the process would go unnoticed

    def answer(self) -> Result | Died | _Message:
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

    def send(value: Any) -> None:
        pipe.send((_Message(value), None))

    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((function(item, send), None))
        except Exception as error:
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
            pipe.send((None, error))


def _follow_parent() -> None:
    """Ends this worker when its parent ends, and leaves Ctrl-C to the parent.

    If the parent is killed, no worker may keep writing into a folder that the next run removes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_and_leave() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_and_leave, daemon=True).start()
