"""Tables in the terminal."""

import sys

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def new_table(title: str, *columns: str) -> Table:
    """Returns an empty table with right-aligned columns."""
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="right")
    return table


def new_console() -> Console:
    """Returns a console as wide as the terminal, or 120 columns for files and pipes, which have no width."""
    return Console(width=None if sys.stdout.isatty() else 120)
