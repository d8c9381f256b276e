"""How every command starts, and how it fails: with a sentence instead of a traceback."""

import traceback
from collections.abc import Callable

import jax
from absl import app, flags, logging

from cion_jax.runtime import processes
from cion_jax.runtime.progress import console

_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where in the code an error was raised.")
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "Several processes: host:port of process 0.")
_COUNT = flags.DEFINE_integer("num_processes", None, "Several processes: how many.", lower_bound=1)
_INDEX = flags.DEFINE_integer("process_id", None, "Several processes: which one this is, from 0.", lower_bound=0)


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a command's `main` under absl, after this process has joined the others of the command, if any.

    A `ValueError` (the user's input is wrong) or `OSError` (disk full, no permission) is printed as one message
    and exits with 2; Ctrl-C exits with 130. `--traceback` shows where an error was raised. One process that fails
    ends all.
    """

    def guarded(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # JAX reports every backend that is not there
        if len(argv) > 1:
            fail(f"unexpected arguments {argv[1:]}; settings are given as --name=value")
        try:
            processes.start_up(_COORDINATOR.value, _COUNT.value, _INDEX.value)
            main(argv)
        except (ValueError, OSError) as error:
            if _TRACEBACK.value:
                traceback.print_exc()
            fail(str(error))
        except KeyboardInterrupt:
            console.print("[yellow]Interrupted.[/] What is finished is kept; the same command continues.")
            processes.leave(130)
        except Exception:
            traceback.print_exc()
            processes.leave(1)

    app.run(guarded)


def fail(message: str) -> None:
    """Prints `message` as an error and exits with 2."""
    console.quiet = False
    which = f" in process {jax.process_index()}" if jax.distributed.is_initialized() else ""
    console.print(f"[bold red]Error{which}:[/]", end=" ")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    processes.leave(2)
