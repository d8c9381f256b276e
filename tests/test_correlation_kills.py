"""Correlations, from scratch or grown, that are killed at random times end with the files of an undisturbed one."""

import os
import subprocess
import sys

import numpy as np
import pytest

from cion_jax.correlation import correlate_to
from cion_jax.samples import SampleTable, write_samples
from tests.correlation_oracle import make_world

# Children are forked before JAX has started anything, which spares each the seconds of importing it.
SCRIPT = """
import filecmp, os, random, signal, sys, time
from pathlib import Path
from cion_jax.correlation import correlate_to, extend_to

RESULTS = ["identities.parquet", "annotations.json", "index/groups.npy", "index/centroids.npy", "index/links.npy"]
random.seed(int(sys.argv[1]))
folder = Path(sys.argv[2])
alone, killed, old, earlier, later = (folder / name for name in ("alone", "killed", "old", "earlier", "later"))

def job(out):
    if sys.argv[3] == "grow":
        extend_to(out, old, samples=f"{later}.parquet", features_path=f"{later}.npy", remove=["1"], overwrite=True)
    else:
        correlate_to(out, f"{earlier}.parquet", f"{earlier}.npy", overwrite=True)

def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

def run(out, kill_after=None):
    started, child = time.perf_counter(), os.fork()
    if child == 0:
        job(out)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return time.perf_counter() - started, status == signal.SIGKILL

before = contents(old)
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
assert contents(old) == before
extra = ["changes.json"] if sys.argv[3] == "grow" else []
assert sorted(os.listdir(killed)) == sorted([*RESULTS[:2], *extra, "index", "report.json"]), os.listdir(killed)
print(f"{kills} killed, after {complete} of 10 the results were whole; {seconds:.2f} s undisturbed")
"""


@pytest.mark.slow
@pytest.mark.parametrize("job", ["correlate", "grow"])
def test_a_run_killed_at_random_moments_and_then_finished_gives_the_same_bytes(job, tmp_path):
    features, videos, tracklets = make_world(31, images=3000, videos=15, tracklets=20, people=30)
    names = np.array([f"{row}.jpg" for row in range(len(features))])
    for name, rows in (("earlier", videos < 10), ("later", videos >= 10)):
        table = SampleTable.from_columns(file_path=names[rows], video=videos[rows], tracklet=tracklets[rows])
        write_samples(table, tmp_path / f"{name}.parquet")
        np.save(tmp_path / f"{name}.npy", features[rows].astype(np.float16))
    if job == "grow":
        correlate_to(tmp_path / "old", tmp_path / "earlier.parquet", tmp_path / "earlier.npy")
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, "7", str(tmp_path), job],
        env=os.environ | cache | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "killed, after" in done.stdout
