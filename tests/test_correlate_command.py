"""`correlate_to` and the command: all three files or none, and errors before any work."""

import errno
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cion_jax.correlation import correlate, correlate_to, pairwise_scores, results
from cion_jax.reporting.correlation_report import draw_identities, print_summary
from cion_jax.samples import SampleTable, read_samples, write_samples

IMAGES = 40


@pytest.fixture
def paths(tmp_path):
    """A table of two videos and features of three people, on disk: (out, table, features)."""
    random = np.random.default_rng(0)
    person = random.integers(0, 3, IMAGES)
    features = np.eye(3, 16)[person] + random.normal(size=(IMAGES, 16)) * 0.05
    video = np.arange(IMAGES) % 2
    table = SampleTable.from_columns(
        file_path=[f"{row:03d}.jpg" for row in range(IMAGES)],
        video=[f"street-{number}" for number in video],
        tracklet=(person + 3 * (random.random(IMAGES) < 0.2)).tolist(),
        person=np.where(random.random(IMAGES) < 0.1, -1, person),
    )
    write_samples(table, tmp_path / "samples.parquet")
    np.save(tmp_path / "features.npy", features.astype(np.float16))
    return tmp_path / "out", tmp_path / "samples.parquet", tmp_path / "features.npy"


def run_command(*arguments):
    return run_python("-m", "cion_jax.correlate", *arguments)


def run_python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def flags(paths):
    return [f"--{name}={path}" for name, path in zip(("out", "samples", "features"), paths)]


def test_command_writes_files_that_agree(paths):
    out, samples, features = paths
    done = run_command(*flags(paths), "--half_width=all", "--sigma_drm=0.15")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "annotations.json",
        "identities.parquet",
        "index",
        "report.json",
    ]
    table = read_samples(samples)
    found = correlate(np.load(features), table.videos, table.tracklets, sigma_drm=0.15, half_width=None)
    identified = read_samples(out / "identities.parquet")
    assert identified.columns == (*table.columns, "identity")
    np.testing.assert_array_equal(identified["identity"], found.identities)
    annotations = json.loads((out / "annotations.json").read_text())
    kept = identified["identity"] >= 0
    assert [entry["file_path"] for entry in annotations] == identified["file_path"][kept].tolist()
    assert [entry["id"] for entry in annotations] == identified["identity"][kept].tolist()
    report = json.loads((out / "report.json").read_text())
    assert report["settings"] == {
        "sigma_cst": 0.2,
        "sigma_drm": 0.15,
        "half_width": "all",
        "levels": 3,
        "forbid_covisible": False,
        "rule": "closure",
        "neighbors": 5,
    }
    assert [entry["level"] for entry in report["levels"]] == [0, 1, 2, 3]
    last = report["levels"][-1]
    assert last["identities"] == found.identities.max() + 1 == 3
    assert last["images_kept"] + last["images_discarded"] == IMAGES
    assert last["pairwise"]["f1"] == pairwise_scores(found.identities, table["person"]).f1
    assert last["noise"] == 0
    assert "n_S" in done.stdout and "F1" in done.stdout and str(out) in done.stdout

    again = run_command(*flags(paths))
    assert again.returncode == 2
    assert "overwrite" in again.stderr and "Traceback" not in again.stderr


def test_features_in_double_precision_are_read_as_float32(paths, tmp_path):
    out, samples, features = paths
    correlate_to(out, samples, features)
    doubled = tmp_path / "doubled.npy"
    np.save(doubled, np.load(features).astype(np.float64))
    correlate_to(tmp_path / "again", samples, doubled)
    expected, found = (read_samples(folder / "identities.parquet")["identity"] for folder in (out, tmp_path / "again"))
    np.testing.assert_array_equal(found, expected)
    assert np.load(doubled, mmap_mode="r").dtype == np.float64  # the user's file, which the index refers to, is kept

    values = np.load(doubled)
    values[7, 3], values[9] = 1e200, 1e-200
    np.save(doubled, values)
    with pytest.raises(ValueError, match="features of 2 of 40 rows are NaN, infinite or all zero: rows 7, 9"):
        correlate_to(tmp_path / "refused", samples, doubled)


def test_results_are_replaced_only_with_overwrite(paths):
    first = correlate_to(*paths, levels=0)
    with pytest.raises(ValueError, match=r"report\.json exists: these results are complete"):
        correlate_to(*paths)
    assert correlate_to(*paths, overwrite=True)["levels"][0]["identities"] == first["levels"][0]["identities"]
    assert json.loads((paths[0] / "report.json").read_text())["settings"]["levels"] == 3


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_killed_run_leaves_no_result_and_is_simply_run_again(paths, monkeypatch, overwrite):
    out = paths[0]
    if overwrite:
        correlate_to(*paths, levels=0)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(results.tables, "write_annotations", killed)
        with pytest.raises(KeyboardInterrupt):
            correlate_to(*paths, overwrite=overwrite)
    assert not (out / "report.json").exists()
    (out / ".identities.parquet.0123abcd.tmp").write_text("half a fi")
    correlate_to(*paths)
    assert sorted(path.name for path in out.iterdir()) == [
        "annotations.json",
        "identities.parquet",
        "index",
        "report.json",
    ]


def test_summary_has_a_row_for_each_level(paths, capsys):
    print_summary(correlate_to(*paths, levels=2))
    printed = capsys.readouterr().out
    rows = [line.split()[0] for line in printed.splitlines() if line.strip()[:1].isdigit()]
    assert rows == ["40", "0", "1", "2", "0", "1", "2"]  # all images, kept images, accuracy


def test_a_picture_does_not_outlive_its_results(paths):
    out, images = paths[0], paths[0].parent
    for row in range(IMAGES):
        Image.new("RGB", (8, 16)).save(images / f"{row:03d}.jpg")
    correlate_to(*paths, sigma_drm=0.3)
    draw_identities(out, images)
    assert (out / "identities.png").exists()
    correlate_to(*paths, levels=0, overwrite=True)
    draw_identities(out, None)
    assert not (out / "identities.png").exists()


def refused(paths, message, **settings):
    with pytest.raises(ValueError, match=message):
        correlate_to(*paths, **settings)
    assert not (paths[0] / "report.json").exists()
    assert not (paths[0] / "identities.parquet").exists()


def test_mismatched_input_is_refused_and_nothing_is_written(paths):
    out, samples, features = paths
    refused(paths, "sigma_cst=3", sigma_cst=3)
    refused(paths, "half_width=-2", half_width=-2)
    refused(paths, "levels=7", levels=7)
    refused((out, samples, out / "none.npy"), "no such file")

    whole = np.load(features)
    np.save(features, whole[:-1])
    refused(paths, rf"shape \(39, 16\) for a sample table of {IMAGES} rows")
    whole[7] = np.nan
    np.save(features, whole)
    refused(paths, r"1 of 40 rows .* rows 7 ")
    features.write_bytes(features.read_bytes()[:200])
    refused(paths, r"not a readable \.npy")
    features.write_text("[1, 2]")
    refused(paths, r"not a readable \.npy")

    write_samples(SampleTable.from_columns(file_path=["a.jpg"], tracklet=[1]), samples)
    refused(paths, "no column video .it has file_path, tracklet.")
    write_samples(SampleTable.from_columns(file_path=["a.jpg"], video=[1]), samples)
    refused(paths, "no column tracklet .it has file_path, video.")


def test_empty_tables_and_duplicate_columns_are_refused(paths):
    out, samples, features = paths
    csv = samples.with_suffix(".csv")
    csv.write_text("file_path,video,tracklet\n")
    refused((out, csv, features), r"samples\.csv: no rows")
    csv.write_text("file_path,video,tracklet\na.jpg,v,1\nb.jpg,v,1\n./a.jpg,w,1\n")
    refused(
        (out, csv, features), r"file_path appears more than once in 2 of 3 rows .* row 0: 'a.jpg', row 2: './a.jpg'"
    )


WITH_LITTLE_ROOM = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # what a full disk does, to files of this process only
runpy.run_module("cion_jax.correlate", run_name="__main__", alter_sys=True)
"""


def test_a_full_disk_is_an_error_that_leaves_nothing(paths):
    done = run_python("-c", WITH_LITTLE_ROOM, *flags(paths), "--levels=0")
    assert done.returncode == 2 and "File too large" in done.stderr and "Traceback" not in done.stderr
    assert not list(paths[0].iterdir())


def test_a_disk_that_is_full_after_the_first_file_is_left_without_any(paths, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    correlate_to(*paths, levels=0)
    monkeypatch.setattr(results.tables, "write_annotations", full)
    with pytest.raises(OSError, match=r"out: results cannot be written \(.*No space left on device\); make room"):
        correlate_to(*paths, levels=0, overwrite=True)
    assert not list(paths[0].iterdir())


def test_a_bad_half_width_is_an_error_without_traceback(paths):
    done = run_command(*flags(paths), "--half_width=some")
    assert done.returncode == 2
    assert "half_width='some'" in done.stderr and "Traceback" not in done.stderr
