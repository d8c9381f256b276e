"""How every command starts, and how it fails: with a sentence instead of a traceback."""

import sys
from collections.abc import Callable

from absl import app, flags, logging

from cion_jax.runtime.progress import console

_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where in the code an error was raised.")


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a command's `main` under absl.

    A `ValueError` (the user's input is wrong) or `OSError` (disk full, no permission) is printed as one message
    and exits with 2; Ctrl-C exits with 130. `--traceback` lets them through as they were raised.
    """

    def guarded(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # JAX reports every backend that is not there
        if len(argv) > 1:
            fail(f"unexpected arguments {argv[1:]}; settings are given as --name=value")
        if _TRACEBACK.value:
            main(argv)
            return
        try:
            main(argv)
        except (ValueError, OSError) as error:
            fail(str(error))
        except KeyboardInterrupt:
            console.print("[yellow]Interrupted.[/] What is finished is kept; the same command continues.")
            sys.exit(130)

    app.run(guarded)


def fail(message: str) -> None:
    """Prints `message` as an error and exits with 2."""
    console.print("[bold red]Error:[/]", end=" ")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)
