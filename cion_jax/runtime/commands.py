"""Start-up and error reporting shared by all commands: users get one sentence instead of a traceback."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags, logging

from cion_jax.runtime import processes
from cion_jax.runtime.overrides import mistyped_override
from cion_jax.runtime.progress import console
from cion_jax.runtime.termination import Terminated, interrupt_once

_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where in the code an error was raised.")
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "Several processes: host:port of process 0.")
_COUNT = flags.DEFINE_integer("num_processes", None, "Several processes: how many.", lower_bound=1)
_INDEX = flags.DEFINE_integer("process_id", None, "Several processes: which one this is, from 0.", lower_bound=0)
_COMPILE_CACHE = flags.DEFINE_string(
    "compile_cache",
    None,
    "Folder of compiled programs; a program is compiled once for all runs. Default: JAX_COMPILATION_CACHE_DIR, else "
    "cion_jax in the user's cache folder. Empty: none.",
)


def run(main: Callable[[list[str]], None], *, shares_work: bool = False) -> None:
    """Runs a command's `main` under absl, after joining the command's other processes, if any.

    Multi-process runs are refused unless the command declares `shares_work`.

    A `ValueError` (invalid user input) or `OSError` (disk full, no permission) is printed as one message with exit
    code 2. Ctrl-C exits with 130 and SIGTERM during training with 143; training saves a checkpoint first. A second
    Ctrl-C ends the process at once.
    `--traceback` shows where an error was raised. If one process fails, all of them end.
    """

    def guarded(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # JAX reports every backend that is unavailable
        if len(argv) > 1:
            fail(f"unexpected arguments {argv[1:]}; settings are given as --name=value")
        interrupt_once()
        try:
            _keep_compiled_programs(_COMPILE_CACHE.value)
            processes.start_up(_COORDINATOR.value, _COUNT.value, _INDEX.value)
            if jax.distributed.is_initialized() and not shares_work:
                raise ValueError("this command runs in one process; several share cion_jax.pretrain and correlate only")
            main(argv)
        except (ValueError, OSError) as error:
            if _TRACEBACK.value:
                traceback.print_exc()
            fail(_explained(error))
        except Terminated as asked:
            cause = "Ctrl-C" if asked.signal == signal.SIGINT else asked.signal.name
            console.print(f"[yellow]Stopped by {cause}:[/] {asked}.", highlight=False, soft_wrap=True)
            sys.exit(asked.exit_code)  # all processes stop here, so a normal exit, which waits for the others, is safe
        except KeyboardInterrupt:
            console.print("[yellow]Interrupted.[/] What is finished is kept; the same command continues.")
            processes.leave(130, at_once=True)
        except Exception as error:
            traceback.print_exc()
            if processes.lost_another(error):
                fail(_explained(error))
            processes.leave(1)

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses flags as absl does; a mistyped setting and a config that is not there end in one message."""
    try:
        return app.parse_flags_with_usage(argv)
    except OSError as error:
        fail(str(error))
    except (AttributeError, KeyError):
        if (message := mistyped_override(argv)) is None:
            raise
        fail(message)


def define_model_flags() -> None:
    """Defines the flags of every command that runs a model."""
    flags.DEFINE_string("model", None, "Name of the model, for example resnet50_ibn.", required=True)
    flags.DEFINE_string("weights", None, "Its weights: a ReIDZoo .pth, a file of convert's, or a fine-tuned network.")
    flags.DEFINE_string("section", None, "Section of --weights to take, where it has several, such as state_dict_ema.")
    flags.DEFINE_bool("random_weights", False, "Use the model untrained, instead of --weights.")
    default = "Default: that of the weights' card, else"
    flags.DEFINE_integer("height", None, f"Height that images are resized to. {default} 256.", lower_bound=1)
    flags.DEFINE_integer("width", None, f"Width that images are resized to. {default} 128.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 64, "Images per batch.", lower_bound=1)
    define_resampling_flag()


def define_resampling_flag() -> None:
    """Defines the flag for ViTs that the released code fine-tuned (`cion_jax.finetuning.positions`)."""
    flags.DEFINE_bool(
        "resample_positions",
        None,
        "Resample a ViT's position table, as networks fine-tuned by the released code need it. Default: what the "
        "weights' card says, else no.",
    )


def check_weights_given(weights: str | Sequence[str] | None, *, random_weights: bool) -> None:
    """Raises ValueError unless there are either `weights` or `random_weights`, of `define_model_flags`."""
    if bool(weights) == random_weights:
        raise ValueError("give the model's weights with --weights=FILE, or --random_weights for an untrained one")


def fail(message: str) -> NoReturn:
    """Prints `message` as an error and exits with 2."""
    console.quiet = False
    which = f" in process {jax.process_index()}" if jax.distributed.is_initialized() else ""
    console.print(f"[bold red]Error{which}:[/]", end=" ")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    processes.leave(2)


def _explained(error: Exception) -> str:
    if not processes.lost_another(error):
        return str(error)
    return (
        "computing together with the other processes failed, most likely because another one died; its output says "
        f"why. The same command in all of them continues from what was saved. ({error})"
    )


def _keep_compiled_programs(folder: str | None) -> None:
    """Sets JAX's persistent compilation cache: a restart then takes seconds instead of minutes."""
    if folder is None:
        if "JAX_COMPILATION_CACHE_DIR" in os.environ:  # JAX reads it itself
            return
        folder = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cion_jax" / "programs")
    jax.config.update("jax_compilation_cache_dir", folder or None)
