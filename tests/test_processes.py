"""Multi-process commands: start-up, failures and the launcher."""

import os
import shutil
import signal
import subprocess
import time

import jax
import pytest

from cion_jax.runtime.processes import check_shared, start_up
from tests import processes

# A minimal command: sums a batch over all devices and prints the result; with FAULT, process 1 fails.
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
def test_processes_compute_together_and_only_the_first_prints(tmp_path):
    logs = processes.run(2, tmp_path, "-c", COMMAND.replace('"FAULT"', "False"), devices=2)
    assert "4 devices, sum 6" in logs[0]
    assert "sum" not in logs[1]


@pytest.mark.slow
def test_one_process_that_fails_says_why_and_ends_the_others(tmp_path):
    started = processes.start(2, tmp_path, "-c", COMMAND.replace('"FAULT"', "True"), devices=2)
    codes, logs = processes.finish(started, tmp_path, timeout=300)
    assert codes[1] == 2 and "Error in process 1: no room on this host" in logs[1]
    assert codes[0] != 0


TOGETHER = """
import numpy as np
from cion_jax.runtime import processes
from cion_jax.runtime.commands import run

def main(argv):
    while True:
        print(processes.all_gather(np.ones((1, 1))), flush=True)

run(main, shares_work=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_surviving_process_reports_the_death_of_another(tmp_path, killed):
    started = processes.start(2, tmp_path, "-c", TOGETHER)
    while "[1.]]" not in (tmp_path / f"{1 - killed}.log").read_text():
        assert all(process.poll() is None for process in started)
        time.sleep(0.1)
    started[killed].kill()
    codes, logs = processes.finish(started, tmp_path, timeout=300)
    code, log = codes[1 - killed], logs[1 - killed]
    reported = code == 2 and "because another one died" in log and "The same command in all of them continues" in log
    if killed == 0:  # JAX, which monitors process 0, may report it first
        reported = reported or "another task died" in log
    assert reported and code, log


SHARED = """
import sys
from pathlib import Path
import jax
from cion_jax.runtime import processes
from cion_jax.runtime.commands import run

def main(argv):
    processes.check_shared(Path("FOLDER") / "all")
    processes.SHARED_SECONDS = 0.5
    processes.check_shared(Path("FOLDER") / str(jax.process_index()))

run(main, shares_work=True)
"""


@pytest.mark.slow
def test_a_folder_that_is_not_shared_is_refused_by_all(tmp_path):
    started = processes.start(2, tmp_path, "-c", SHARED.replace("FOLDER", str(tmp_path)))
    codes, logs = processes.finish(started, tmp_path, timeout=300)
    assert codes == [2, 2]
    for index, log in enumerate(logs):
        assert f"Error in process {index}: {tmp_path / str(index)}: processes [1] do not see" in log
    assert list((tmp_path / "all").iterdir()) == list((tmp_path / "0").iterdir()) == []


def test_a_single_process_needs_no_shared_folder(tmp_path):
    check_shared(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


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
def test_incomplete_start_up_settings_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        start_up(environment=given)


def test_a_single_process_does_not_initialise_jax_distributed():
    start_up(environment={})
    start_up(environment={"SLURM_NTASKS": "8", "SLURM_PROCID": "0"})  # a batch script, not a job step
    start_up("localhost:1", 1, 0, environment={})
    assert not jax.distributed.is_initialized()


def local(*command, folder=processes.ROOT / "launch"):
    """Starts `local.sh` of `folder` with two processes of a command, in a process group of its own as in a terminal."""
    launcher = ["env", "--default-signal=INT", "bash", folder / "local.sh", "2", *command]
    return subprocess.Popen(launcher, stdout=subprocess.PIPE, text=True, process_group=0)


def test_the_launcher_sets_process_ids_and_reports_a_failure():
    launcher = local("bash", "-c", "echo $CION_PROCESS_ID of $CION_NUM_PROCESSES; exit $((3 * CION_PROCESS_ID))")
    printed, _ = launcher.communicate(timeout=300)
    assert sorted(printed.splitlines()) == ["0 of 2", "1 of 2"]
    assert launcher.returncode == 3


def test_the_launcher_kills_processes_that_outlive_a_failed_one(tmp_path):
    for name in ("local.sh", "gpu.sh"):
        shutil.copy(processes.ROOT / "launch" / name, tmp_path)
    script = (tmp_path / "local.sh").read_text()
    assert "SECONDS + 45" in script
    (tmp_path / "local.sh").write_text(script.replace("SECONDS + 45", "SECONDS + 1"))
    waits = "trap '' TERM; for ((i = 0; i < 600; i++)); do sleep 0.1; done; echo 'waited for a minute'"
    launcher = local("bash", "-c", f"[[ $CION_PROCESS_ID == 1 ]] && exit 3; {waits}", folder=tmp_path)
    printed, _ = launcher.communicate(timeout=300)
    assert (printed, launcher.returncode) == ("", 3)


SAVES = "trap 'echo saving; sleep 1; echo saved; exit 143' TERM; echo ready; while true; do sleep 0.1; done"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_the_launcher_stops_its_processes_and_waits(end):
    launcher = local("bash", "-c", SAVES)
    assert [launcher.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    if end == signal.SIGINT:
        os.killpg(launcher.pid, end)  # Ctrl-C reaches the terminal's whole foreground group
    else:
        launcher.send_signal(end)
    printed, _ = launcher.communicate(timeout=300)
    assert sorted(printed.splitlines()) == ["saved"] * 2 + ["saving"] * 2
    assert launcher.returncode == 143


def test_pressing_again_stops_without_saving():
    launcher = local("bash", "-c", SAVES)
    for word in ("ready", "saving"):
        assert [launcher.stdout.readline() for _ in range(2)] == [f"{word}\n"] * 2
        os.killpg(launcher.pid, signal.SIGINT)
    printed, _ = launcher.communicate(timeout=300)
    assert (printed, launcher.returncode) == ("", 137)


@pytest.mark.slow
def test_a_command_that_shares_nothing_is_refused(tmp_path):
    command = COMMAND.replace("run(main, shares_work=True)", "run(main)")
    codes, logs = processes.finish(processes.start(2, tmp_path, "-c", command), tmp_path, timeout=300)
    assert codes != [0, 0] and all(code for code in codes)
    assert any("this command runs in one process" in log for log in logs)
