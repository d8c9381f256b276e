"""Multi-process runs, on one host or many: all processes run the same command and share its work.

Every process is started with the same command. Each gets the address of process 0, the number of processes and its
own index from flags, from environment variables (`launch/local.sh` and `launch/multihost.sh` set them) or from
Slurm, whose job steps JAX recognises. A process without any of these runs alone.
"""

import os
import re
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from cion_jax.runtime.progress import console

# After this long without a heartbeat a process counts as dead, and JAX ends all others. Long enough for a host that
# is busy decoding, yet failures are still detected well within a minute. JAX's own default is 100.
HEARTBEAT_SECONDS = 30
# Time that a process waits for the others to start: the nodes of a large job may come up minutes apart.
START_SECONDS = 300
# Time that a finished process waits for the others at shutdown: process 0 may still be writing weights.
SHUTDOWN_SECONDS = 300
# Time that a file written by process 0 may take to become visible to the others on a network file system.
SHARED_SECONDS = 10

COORDINATOR, COUNT, INDEX = "CION_COORDINATOR_ADDRESS", "CION_NUM_PROCESSES", "CION_PROCESS_ID"
# Only set inside a Slurm job step (`srun`); `SLURM_NTASKS` is also set in a batch script, which runs alone.
_SLURM_TASKS = "SLURM_STEP_NUM_TASKS"
# Prefix of error messages from gloo, NCCL and JAX's coordination service.
_STATUS = re.compile("(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION): ")


def start_up(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Joins the other processes of this command; must be called before anything touches a device.

    Afterwards `jax.devices()` lists the devices of all processes, and only process 0 shows progress. On CPU,
    collectives between processes use gloo, JAX's default.

    Args:
        coordinator_address: Address of process 0, `host:port`; default `CION_COORDINATOR_ADDRESS`.
        num_processes: Number of processes; default `CION_NUM_PROCESSES`.
        process_id: Index of this process, from 0; default `CION_PROCESS_ID`.
        environment: Mapping in which the variables are looked up.

    Raises:
        ValueError: Only some of the three are given, or they contradict each other.
    """
    address = coordinator_address or environment.get(COORDINATOR)
    count = _number(num_processes, COUNT, environment)
    index = _number(process_id, INDEX, environment)
    if (address, count, index) == (None, None, None):
        if int(environment.get(_SLURM_TASKS, 1)) > 1:
            _initialize()  # one task per GPU: each uses the device with its local id
        return
    if address is None or count is None or index is None:
        raise ValueError(
            f"several processes need --coordinator_address, --num_processes and --process_id (or {COORDINATOR}, "
            f"{COUNT} and {INDEX}), got {address}, {count} and {index}; give all three, or none to run alone"
        )
    if not 0 <= index < count:
        raise ValueError(f"--process_id {index} of --num_processes {count}: ids go from 0 to {count - 1}")
    if not address.rpartition(":")[2].isdecimal():
        raise ValueError(f"--coordinator_address {address!r} has no port; give it as host:port, such as node0:9731")
    if count > 1:
        _initialize(address, count, index, cluster_detection_method="deactivate")


def is_primary() -> bool:
    """True in process 0, which alone writes shared files and reports progress."""
    return jax.process_index() == 0


def all_gather(array: np.ndarray) -> np.ndarray:
    """Concatenates the arrays of all processes along the first axis; every process gets the result.

    All processes must call this together. Their arrays may differ in length along the first axis only.
    """
    if jax.process_count() == 1:
        return array
    counts = multihost_utils.process_allgather(np.array(len(array)))
    padded = np.zeros((counts.max(), *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    gathered = multihost_utils.process_allgather(padded)
    return np.concatenate([part[:count] for part, count in zip(gathered, counts, strict=True)])


def check_shared(folder: Path) -> None:
    """Checks that all processes see the same `folder`, creating it if needed; all must call this together.

    Raises:
        ValueError: Some process does not see what process 0 writes there; raised in all of them.
        OSError: Process 0 cannot write there.
    """
    if jax.process_count() == 1:
        return
    own = secrets.randbits(32)
    if is_primary():
        folder.mkdir(parents=True, exist_ok=True)
        _mark(folder, own).touch()
    try:
        token = int(multihost_utils.broadcast_one_to_all(np.uint32(own)))  # received only after the mark was written
        seen = all_gather(np.array([_appears(_mark(folder, token))]))
    finally:
        if is_primary():
            _mark(folder, own).unlink()
    if not seen.all():
        raise ValueError(
            f"{folder}: processes {np.flatnonzero(seen == 0).tolist()} do not see what process 0 writes there; give a "
            f"folder on a disk that all processes share, by a path that is the same for all of them"
        )


def lost_another(error: Exception) -> bool:
    """True if `error` is a collective operation that failed because another process has died.

    Its message begins with a status code. On CPU it is a `ValueError`, elsewhere a `JaxRuntimeError`.
    """
    kinds = (jax.errors.JaxRuntimeError, ValueError)
    return jax.distributed.is_initialized() and isinstance(error, kinds) and bool(_STATUS.match(str(error)))


def leave(code: int, *, at_once: bool = False) -> NoReturn:
    """Exits with `code`; at once if other processes are running, so that they notice instead of waiting.

    `at_once` does so in a single process too: a normal exit waits for threads that are still decoding, and those that
    ask for more work meanwhile print tracebacks.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if at_once or jax.distributed.is_initialized():
        os._exit(code)  # a normal exit would wait for the others, which wait for this one in their next collective
    sys.exit(code)


def _mark(folder: Path, token: int) -> Path:
    return folder / f".{token:08x}.shared"


def _appears(path: Path) -> bool:
    end = time.monotonic() + SHARED_SECONDS
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _number(given: int | None, variable: str, environment: Mapping[str, str]) -> int | None:
    if given is not None or variable not in environment:
        return given
    if not environment[variable].isdecimal():
        raise ValueError(f"{variable}={environment[variable]!r} is not a number")
    return int(environment[variable])


def _initialize(*process: Any, **options: Any) -> None:
    jax.distributed.initialize(
        *process,
        **options,
        initialization_timeout=START_SECONDS,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )
    console.quiet = not is_primary()
