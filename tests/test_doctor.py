"""Examination of sample tables: correct counts, and every problem reported once, with examples."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cion_jax.samples import SampleTable, write_samples
from cion_jax.samples.contents import contents
from cion_jax.samples.examination import examine, in_lines
from cion_jax.samples.stores.packed import pack


@pytest.fixture
def valid(tmp_path):
    """Eight images of two people: two videos with two tracklets each."""
    rng = np.random.default_rng(0)
    for row in range(8):
        pixels = rng.integers(0, 256, (40 + row, 20, 3), dtype=np.uint8)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{row}.jpg")
    table = SampleTable.from_columns(
        file_path=[f"{row}.jpg" for row in range(8)],
        video=["a"] * 4 + ["b"] * 4,
        tracklet=[1, 1, 2, 2, 1, 1, 2, 2],
        frame=[5, 6, 5, 6, 5, 6, 5, 6],
        identity=[0, 0, 1, 1, 0, 0, -1, 1],
        person=[3, 3, 9, 9, 3, 3, -1, 9],
        camera=[1, 1, 1, 1, 2, 2, 2, 2],
    )
    return tmp_path / "images", table


def findings(report, kind="problems"):
    return {finding["what"]: (finding["count"], finding["examples"]) for finding in report[kind]}


def test_a_valid_data_set(valid):
    folder, table = valid
    report = examine(table, folder)
    assert report["contents"] == {
        "images": 8,
        "identities": 2,
        "discarded": 1,
        "images_per_identity": [3, 3.5, 4],
        "persons": 2,
        "videos": 2,
        "cameras": 2,
        "tracklets": 4,
        "images_per_tracklet": [2, 2, 2],
    }
    assert report["images"] == {
        "height": [40, 43.5, 47],
        "width": [20, 20, 20],
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "distinct": 8,
    }
    assert report["problems"] == [] and report["remarks"] == []
    assert in_lines(report)[-1] == "nothing is wrong"


def test_every_problem_is_reported(valid):
    folder, table = valid
    (folder / "1.jpg").unlink()
    (folder / "2.jpg").write_bytes(b"broken")
    (folder / "3.jpg").write_bytes((folder / "3.jpg").read_bytes()[:300])
    for row in (5, 7):  # 5 is the same person, 7 another one
        (folder / f"{row}.jpg").write_bytes((folder / "4.jpg").read_bytes())
    report = examine(table.with_columns(frame=[5, 6, 5, 6, 5, 5, 5, 6]), folder)
    problems = findings(report)
    assert problems.pop("images that are not there") == (1, ["1.jpg"])
    count, examples = problems.pop("images that cannot be decoded")
    assert count == 2 and examples[0].startswith("2.jpg: not an image") and examples[1].startswith("3.jpg: a broken")
    assert problems == {
        "images whose content is that of an earlier row": (2, ["5.jpg = 4.jpg", "7.jpg = 4.jpg"]),
        "images of the same content but another identity": (1, ["7.jpg: identity 1, 4.jpg: 0"]),
        "images of the same content but another person": (1, ["7.jpg: person 9, 4.jpg: 3"]),
        "images of a tracklet that is in this frame already": (1, ["5.jpg"]),
    }
    assert report["images"]["distinct"] == 3
    lines = in_lines(report)
    assert "WRONG: 1 images that are not there" in lines and lines[-1] == "something is wrong"


def test_jpegs_damaged_inside_are_listed(valid):
    folder, table = valid
    whole = (folder / "3.jpg").read_bytes()
    middle = len(whole) - 700
    (folder / "3.jpg").write_bytes(whole[:middle] + whole[middle + 500 :])
    report = examine(table, folder)
    (count, examples) = findings(report).pop("JPEGs that are damaged inside")
    assert count == 1 and examples[0].startswith("3.jpg: damaged inside, part of it is garbage (")
    assert report["images"]["distinct"] == 8 and report["images"]["height"] == [40, 43.5, 47]  # it can be decoded


def test_without_simplejpeg_the_doctor_says_what_it_cannot_find(valid, monkeypatch):
    monkeypatch.setattr("cion_jax.samples.images.simplejpeg", None)
    monkeypatch.setattr("cion_jax.samples.examination.FINDS_DAMAGE", False)
    remarks = findings(examine(valid[1], valid[0]), "remarks")
    assert list(remarks) == ["package is not installed: JPEGs that are damaged inside are not found"]


def test_a_packed_store_gives_the_report_of_its_folder(valid, tmp_path):
    folder, table = valid
    (folder / "2.jpg").write_bytes(b"broken")
    (folder / "7.jpg").write_bytes((folder / "4.jpg").read_bytes())
    pack(table["file_path"], folder, tmp_path / "store")
    assert examine(table, tmp_path / "store") == examine(table, folder)


def test_remarks_list_suspicious_images(valid):
    folder, _ = valid
    Image.new("RGB", (10, 31)).save(folder / "0.jpg")
    columns = {"file_path": ["0.jpg", "1.jpg"], "identity": [4, 7], "camera": [3, 3], "video": ["a", "a"]}
    report = examine(SampleTable.from_columns(**columns, tracklet=[1, 2]), folder)
    assert findings(report, "remarks") == {
        "images less than 32 pixels high": (1, ["0.jpg"]),
        "identities of one image, which have no positive pair": (2, ["4", "7"]),
        "tracklets of one image": (2, ["0.jpg", "1.jpg"]),
        "video only: there is nothing to link across videos": (1, ["a"]),
        "camera only: retrieval leaves out matches of the query's own camera": (1, ["3"]),
    }
    assert report["problems"] == []
    plain = examine(SampleTable.from_columns(file_path=["1.jpg"]), folder)
    assert list(findings(plain, "remarks")) == ["columns video and tracklet are not there: correlate needs both"]
    discarded = examine(SampleTable.from_columns(file_path=["1.jpg"], identity=[-1]), folder)
    assert list(findings(discarded)) == ["images, all of them, are discarded (identity -1)"]
    assert discarded["contents"]["images_per_identity"] == []


def test_contents_of_a_large_table():
    rows = np.arange(100_000)
    table = SampleTable.from_columns(
        file_path=[f"{row}.jpg" for row in rows], video=rows // 1000, tracklet=rows // 10 % 100, identity=rows % 777 - 1
    )
    counts = contents(table)
    assert (counts["videos"], counts["tracklets"], counts["identities"]) == (100, 10_000, 776)
    assert counts["discarded"] == (rows % 777 == 0).sum() and counts["images_per_tracklet"] == [10, 10, 10]


@pytest.mark.slow
def test_the_command(valid, tmp_path):
    folder, table = valid
    write_samples(table, tmp_path / "s.parquet")
    command = [sys.executable, "-m", "cion_jax.samples.doctor", f"--samples={tmp_path}/s.parquet"]
    command += [f"--images={folder}", f"--out={tmp_path}/report.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "nothing is wrong" in done.stdout, done.stderr
    (folder / "6.jpg").unlink()
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1 and "WRONG: 1 images that are not there\n    6.jpg" in failed.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["problems"][0]["count"] == 1 and report["samples"] == f"{tmp_path}/s.parquet"
    (tmp_path / "s.parquet").write_bytes(b"PAR1")
    unreadable = subprocess.run(command, capture_output=True, text=True, check=False)
    assert unreadable.returncode == 2 and "Traceback" not in unreadable.stderr
