"""Commands run by several processes of this machine, as `launch/local.sh` runs them, but each within reach.

As a program, `python -m tests.processes MODULE ARGUMENTS` runs a command that notices dead peers in seconds.
"""

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

from cion_jax.runtime import processes

ROOT = Path(__file__).parent.parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start(count, folder, *arguments, devices=1):
    """Starts `python *arguments` in `count` processes of `devices` CPU devices; process i prints to folder/i.log."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # half the time to compile; a step takes longer, which is nothing here
        "PYTHONPATH": str(ROOT),
        "CION_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
        "CION_NUM_PROCESSES": str(count),
    }
    folder.mkdir(parents=True, exist_ok=True)
    started = []
    for index in range(count):
        with (folder / f"{index}.log").open("wb") as log:
            own = environment | {"CION_PROCESS_ID": str(index)}
            command = [sys.executable, *arguments]
            started.append(subprocess.Popen(command, cwd=ROOT, env=own, stdout=log, stderr=subprocess.STDOUT))
    return started


def finish(started, folder, timeout=900):
    """Waits for all; their exit codes and what they printed. Those that outlast `timeout` seconds are killed."""
    try:
        codes = [process.wait(timeout) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return codes, [(folder / f"{index}.log").read_text() for index in range(len(started))]


def run(count, folder, *arguments, devices=1, timeout=900):
    """`start` and `finish`; returns the output of each process, and fails with it unless all succeed."""
    codes, logs = finish(start(count, folder, *arguments, devices=devices), folder, timeout)
    assert codes == [0] * count, "\n".join(logs)
    return logs


if __name__ == "__main__":
    processes.HEARTBEAT_SECONDS = 5
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
