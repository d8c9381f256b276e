"""A correlation killed repeatedly at random times ends with the same files as an undisturbed one."""

import os
import subprocess
import sys

import numpy as np
import pytest

from cion_jax.samples import SampleTable, write_samples
from tests.correlation_oracle import make_world

# Children are forked before JAX has started anything, which spares each the seconds of importing it.
SCRIPT = """
import filecmp, os, random, signal, sys, time
from pathlib import Path
from cion_jax.correlation import correlate_to

RESULTS = ["identities.parquet", "annotations.json"]
random.seed(int(sys.argv[1]))
alone, killed = Path(sys.argv[2]) / "alone", Path(sys.argv[2]) / "killed"

def run(out, kill_after=None):
    started, child = time.perf_counter(), os.fork()
    if child == 0:
        correlate_to(out, *sys.argv[3:], overwrite=True)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return time.perf_counter() - started, status == signal.SIGKILL

run(alone)
seconds = run(alone)[0]  # the first one compiled
kills, complete = 0, 0
for _ in range(10):
    kills += run(killed, random.uniform(0, 1.1 * seconds))[1]
    if (killed / "report.json").exists():
        complete += 1
        assert filecmp.cmpfiles(alone, killed, RESULTS, shallow=False) == (RESULTS, [], [])
assert kills >= 5, kills
run(killed)
assert filecmp.cmpfiles(alone, killed, RESULTS, shallow=False) == (RESULTS, [], [])
assert sorted(os.listdir(killed)) == sorted([*RESULTS, "report.json"]), os.listdir(killed)
print(f"{kills} killed, after {complete} of 10 the results were whole; {seconds:.2f} s undisturbed")
"""


@pytest.mark.slow
def test_a_run_killed_at_random_moments_and_then_finished_gives_the_same_bytes(tmp_path):
    features, videos, tracklets = make_world(31, images=2000, videos=10, tracklets=20, people=30)
    names = [f"{row}.jpg" for row in range(len(features))]
    samples, stored = tmp_path / "samples.parquet", tmp_path / "features.npy"
    write_samples(SampleTable.from_columns(file_path=names, video=videos, tracklet=tracklets), samples)
    np.save(stored, features.astype(np.float16))
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, "7", str(tmp_path), str(samples), str(stored)],
        env=os.environ | cache | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "killed, after" in done.stdout
