"""Progress bar used by all stages: done / total, rate, time left."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich import progress as bars
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# Progress and messages go to stderr, so that a command's stdout can be piped.
# A file or pipe has no width; the default of 80 columns would truncate the bar's text.
console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)


def note(message: str) -> None:
    """Prints a message as it is, without markup or line breaks."""
    console.print(message, markup=False, highlight=False, soft_wrap=True)


# Type of `progress` and `silent`: `(title, total, unit)` -> a context manager that yields `advance(count, note)`.
Progress = Callable[[str, int, str], AbstractContextManager[Callable[..., None]]]


class _Rate(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if speed is None:
            return Text("")
        return Text(f"{speed:,.{0 if speed >= 10 else 1}f} {self.unit}/s")


@contextmanager
def progress(title: str, total: int, unit: str = "images") -> Iterator[Callable[..., None]]:
    """Shows a bar and yields `advance(count, note=None)`. Without a terminal, only the final line is printed."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with bars.Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(count: int, note: str | None = None) -> None:
            bar.update(task, advance=count)
            if note is not None:
                bar.update(task, note=note)

        yield advance


@contextmanager
def silent(title: str, total: int, unit: str = "images") -> Iterator[Callable[..., None]]:
    """Drop-in replacement for `progress` that shows nothing."""
    del title, total, unit
    yield lambda count, note=None: None
