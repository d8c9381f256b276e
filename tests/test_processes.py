"""Commands that several processes run together: how they find each other, and how they fail together."""

import signal
import subprocess
import time

import jax
import pytest

from cion_jax.runtime.processes import start_up
from tests import processes

# A command in a few lines: adds the ids of all devices up and says who wrote it; a `fault` comes from one process.
COMMAND = """
import sys
import jax, numpy as np
from cion_jax.runtime import processes
from cion_jax.runtime.commands import run
from cion_jax.runtime.mesh import make_mesh, shard_batch
from cion_jax.runtime.progress import console

def main(argv):
    mesh = make_mesh()
    own = np.arange(2) + 2 * jax.process_index()
    total = int(jax.jit(lambda x: x.sum())(shard_batch(own, mesh)))
    console.print(f"{len(mesh.devices)} devices, sum {total}")
    if "FAULT" and jax.process_index() == 1:
        raise ValueError("no room on this host")
    if "FAULT":
        jax.jit(lambda x: x.sum())(shard_batch(own, mesh)).block_until_ready()

processes.HEARTBEAT_SECONDS = 5
run(main, shares_work=True)
"""


@pytest.mark.slow
def test_processes_compute_together_and_the_first_one_talks(tmp_path):
    logs = processes.run(2, tmp_path, "-c", COMMAND.replace('"FAULT"', "False"), devices=2)
    assert "4 devices, sum 6" in logs[0]
    assert "sum" not in logs[1]


@pytest.mark.slow
def test_one_process_that_fails_says_why_and_ends_the_others(tmp_path):
    started = processes.start(2, tmp_path, "-c", COMMAND.replace('"FAULT"', "True"), devices=2)
    codes, logs = processes.finish(started, tmp_path, timeout=60)
    assert codes[1] == 2 and "Error in process 1: no room on this host" in logs[1]
    assert codes[0] != 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"CION_NUM_PROCESSES": "2"}, "give all three, or none"),
        (
            {"CION_COORDINATOR_ADDRESS": "a:1", "CION_NUM_PROCESSES": "2", "CION_PROCESS_ID": "2"},
            "ids go from 0 to 1",
        ),
        ({"CION_COORDINATOR_ADDRESS": "a", "CION_NUM_PROCESSES": "2", "CION_PROCESS_ID": "0"}, "host:port"),
        ({"CION_NUM_PROCESSES": "two"}, "CION_NUM_PROCESSES='two' is not a number"),
    ],
)
def test_half_a_start_up_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        start_up(environment=given)


def test_a_process_by_itself_starts_nothing():
    start_up(environment={})
    start_up(environment={"SLURM_NTASKS": "8", "SLURM_PROCID": "0"})  # a batch script, not a job step
    start_up("localhost:1", 1, 0, environment={})
    assert not jax.distributed.is_initialized()


def local(*command):
    """`launch/local.sh` with two processes of a shell command."""
    launcher = ["bash", "launch/local.sh", "2", *command]
    return subprocess.Popen(launcher, cwd=processes.ROOT, stdout=subprocess.PIPE, text=True)


def test_the_launcher_tells_processes_who_they_are_and_reports_a_failure():
    launcher = local("bash", "-c", "echo $CION_PROCESS_ID of $CION_NUM_PROCESSES; exit $((3 * CION_PROCESS_ID))")
    printed, _ = launcher.communicate(timeout=30)
    assert sorted(printed.splitlines()) == ["0 of 2", "1 of 2"]
    assert launcher.returncode == 3


def test_the_launcher_passes_sigterm_on_and_waits():
    launcher = local("bash", "-c", "trap 'echo saved; exit 143' TERM; echo ready; while true; do sleep 0.1; done")
    assert [launcher.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    time.sleep(0.2)  # the launcher has set its own trap by now
    launcher.send_signal(signal.SIGTERM)
    printed, _ = launcher.communicate(timeout=30)
    assert printed.splitlines() == ["saved"] * 2
    assert launcher.returncode == 143


@pytest.mark.slow
def test_a_command_that_shares_nothing_is_refused(tmp_path):
    command = COMMAND.replace("run(main, shares_work=True)", "run(main)")
    codes, logs = processes.finish(processes.start(2, tmp_path, "-c", command), tmp_path, timeout=60)
    assert codes != [0, 0] and all(code for code in codes)
    assert any("this command runs in one process" in log for log in logs)
