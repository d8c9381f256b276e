"""The same files from one device, eight devices and two processes, of which the first writes."""

import json

import numpy as np
import pytest

from cion_jax.correlation import correlate_to
from cion_jax.samples import SampleTable, write_samples
from tests import processes
from tests.correlation_oracle import make_world

# Each process has a folder of its own, so that it shows which of them write.
SCRIPT = """
import sys
import jax
from cion_jax.correlation import correlate_to, tracklet
from cion_jax.correlation.engine import tiles
from cion_jax.runtime.processes import start_up
tracklet.BATCH_BYTES = 8192  # so that there are batches for everybody
tiles.scale = lambda: tiles.Scale(block=8, product=64, batch=512, flat=8, picked=True)
start_up()
out, samples, features = sys.argv[1:]
report = correlate_to(f"{out}/{jax.process_index()}", samples, features, half_width="all")
print("levels:", [entry["identities"] for entry in report["levels"]], "devices:", jax.device_count())
"""


@pytest.mark.slow
def test_devices_and_processes_do_not_matter(tmp_path):
    features, videos, tracklets = make_world(21, images=400, videos=4, tracklets=12, people=9)
    names = [f"{row}.jpg" for row in range(len(features))]
    frames = np.random.default_rng(0).integers(0, 60, len(features))
    table = SampleTable.from_columns(file_path=names, video=videos, tracklet=tracklets, frame=frames)
    inputs = tmp_path / "samples.parquet", tmp_path / "features.npy"
    write_samples(table, inputs[0])
    np.save(inputs[1], features)
    expected = correlate_to(tmp_path / "eight", *inputs, half_width="all")
    assert expected["levels"][0]["identities"] > 2 * expected["levels"][3]["identities"] > 2

    for count, devices in ((1, 1), (2, 2)):
        out = tmp_path / f"by {count}"
        logs = processes.run(count, tmp_path / "logs", "-c", SCRIPT, str(out), *map(str, inputs), devices=devices)
        levels = [entry["identities"] for entry in expected["levels"]]
        assert all(f"levels: {levels} devices: {count * devices}" in log for log in logs), "\n".join(logs)
        assert [folder.name for folder in out.iterdir()] == ["0"]
        for file in ("identities.parquet", "annotations.json"):
            assert (out / "0" / file).read_bytes() == (tmp_path / "eight" / file).read_bytes()
        assert untimed(out / "0") == untimed(tmp_path / "eight")


def untimed(folder):
    """The report without its timings."""
    report = json.loads((folder / "report.json").read_text())
    levels = [
        {name: value for name, value in entry.items() if not name.startswith("seconds")} for entry in report["levels"]
    ]
    return report | {"seconds": 0, "levels": levels}
