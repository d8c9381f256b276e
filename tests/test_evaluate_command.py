"""The evaluate command: several networks on several data sets, re-ranking, probes, and errors."""

import json
import subprocess
import sys
from pathlib import Path

import flax.nnx as nnx
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cion_jax.evaluation import Benchmark, KReciprocal, read_msmt17
from cion_jax.evaluation import run as command
from cion_jax.evaluation.summary import summary, table

PEOPLE = ((220, 30, 30), (30, 220, 30), (30, 30, 220))


def save(path, identity, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 16), tuple(value + shade for value in PEOPLE[identity])).save(path)


def make_market(root):
    for identity in range(3):
        save(root / "query" / f"{identity:04}_c1s1_000001_00.jpg", identity)
        for camera in (2, 3):
            save(root / "bounding_box_test" / f"{identity:04}_c{camera}s1_000001_00.jpg", identity, camera)
            save(root / "bounding_box_train" / f"{identity + 7:04}_c{camera}s1_000001_00.jpg", identity, camera)


def make_msmt17(root):
    lists = {"query": ("test", (1,)), "gallery": ("test", (2, 3)), "train": ("train", (1, 2)), "val": ("train", (3,))}
    for name, (folder, cameras) in lists.items():
        lines = []
        for identity in range(3):
            for camera in cameras:
                path = f"{identity:04}/{identity:04}_000_{camera:02}_0303morning_0008_0.jpg"
                save(root / folder / path, identity, camera)
                lines.append(f"{path} {identity}\n")
        (root / f"list_{name}.txt").write_text("".join(lines))


class MeanColour(nnx.Module):
    def __call__(self, images):
        return jnp.mean(images, axis=(1, 2))


def test_reranked_scores_come_beside_the_others(tmp_path):
    make_msmt17(tmp_path)
    report = command.evaluate(MeanColour(), read_msmt17(tmp_path), size=(16, 8), rerank=KReciprocal(2, 2))
    assert report["mAP"] == report["reranked"]["mAP"] == 1 and report["reranked"]["k1"] == 2
    text = summary(report)
    assert text.count("mAP 100.0  Rank-1 100.0") == 2 and "(re-ranked, k1 2, k2 2)" in text
    assert "faces" not in report["source"] and str(tmp_path) in report["source"]


def test_undecodable_queries_shift_no_labels(tmp_path):
    make_msmt17(tmp_path)
    benchmark = read_msmt17(tmp_path)
    Path(benchmark.query.paths[0]).write_bytes(b"broken")
    Path(benchmark.gallery.paths[3]).write_bytes(b"broken")
    report = command.evaluate(MeanColour(), benchmark, size=(16, 8))
    assert (report["mAP"], report["queries"], report["gallery"], report["undecodable"]) == (1, 2, 5, 2)


def test_probes_of_a_training_split(tmp_path):
    make_msmt17(tmp_path)
    target = command.read_target("msmt17", tmp_path, "train+val")
    assert target.training is not None and len(target.training.paths) == 9
    report = command.evaluate_probes(MeanColour(), target.training, size=(16, 8))
    assert (report["knn"], report["linear"], report["tested"], report["people"]) == (1, 1, 3, 3)
    assert command.read_target("msmt17", tmp_path, None).training is None


def test_a_row_per_network_and_a_column_per_data_set():
    def report(weights, dataset, root, mAP, rank1):
        return {"model": "m", "weights": weights, "dataset": dataset, "root": root, "mAP": mAP, "rank1": rank1}

    reports = [report("a.pth", "msmt17", "V1", 0.5, 0.75), report("a.pth", "msmt17", "V2", 0.25, 0.5)]
    reports.append(report(None, "msmt17", "V2", 0.125, 0.2) | {"reranked": {"mAP": 0.3, "rank1": 0.4}})
    assert table(reports).splitlines()[2:] == [
        "| m | a.pth | 50.0 / 75.0 | 25.0 / 50.0 |",
        "| m | untrained |  | 12.5 / 20.0, 30.0 / 40.0 |",
    ]
    assert "msmt17 V1: mAP / Rank-1, then re-ranked" in table(reports)
    assert "| m | a.pth | 50.0 / 75.0 |" in table(reports[:1]) and "msmt17: mAP" in table(reports[:1])


def test_networks_pair_models_with_weights(tmp_path):
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).touch()
    a, b = str(tmp_path / "a.pth"), str(tmp_path / "b.pth")
    assert command.networks(["resnet18"], [a, b], random_weights=False) == [("resnet18", a), ("resnet18", b)]
    assert command.networks(["resnet18", "vit_tiny"], [a, b], random_weights=False) == [
        ("resnet18", a),
        ("vit_tiny", b),
    ]
    assert command.networks(["resnet18", "vit_tiny"], [], random_weights=True)[1] == ("vit_tiny", None)
    for models, weights, message in (
        (["resnet18", "vit_tiny"], [a], "2 models and 1 files of weights"),
        (["resnet18"], [], "--weights=FILE, or --random_weights"),
        (["resnet81"], [a], "resnet18"),
        (["resnet18"], [a, "c.pth"], r"c\.pth: no such file"),
    ):
        with pytest.raises(ValueError, match=message):
            command.networks(models, weights, random_weights=False)


def test_data_sets_are_read_by_name(tmp_path):
    make_market(tmp_path / "market1501")
    make_msmt17(tmp_path / "MSMT17_V1")
    for name in ("market1501", "msmt17"):
        target = command.read_target(name, tmp_path, None)
        assert isinstance(target.benchmark, Benchmark) and len(target.benchmark.gallery.paths) == 6
    assert command.read_target(f"msmt17={tmp_path}/MSMT17_V1", None, "train").training.cameras.tolist() == [1, 2] * 3
    assert np.unique(command.read_target("market1501", tmp_path, "train").training.ids).tolist() == [7, 8, 9]
    for given, root, split, message in (
        ("msmt71", tmp_path, None, "no data set 'msmt71'; expected one of market1501, msmt17"),
        ("msmt17", None, None, "Give --dataset=msmt17=DIR, or --root=DIR"),
        ("market1501", tmp_path, "train+val", "--probe=train.val: market1501 has no other"),
    ):
        with pytest.raises(ValueError, match=message):
            command.read_target(given, root, split)


@pytest.mark.slow
def test_the_command_writes_each_report_and_a_table(tmp_path):
    make_market(tmp_path / "market1501")
    make_msmt17(tmp_path / "MSMT17_V1")
    flags = ["--dataset=market1501", f"--dataset=msmt17={tmp_path}", f"--root={tmp_path}", "--random_weights"]
    flags += ["--model=vit_test", "--model=resnet_ibn_test", "--rerank", "--probe=train", f"--out={tmp_path}/r.json"]
    done = subprocess.run(
        [sys.executable, "-m", "cion_jax.evaluate", *flags, "--height=64", "--width=32"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reports = json.loads((tmp_path / "r.json").read_text())
    assert [(report["model"], report["dataset"]) for report in reports] == [
        (model, dataset) for model in ("vit_test", "resnet_ibn_test") for dataset in ("market1501", "msmt17")
    ]
    assert all(0 <= report["reranked"]["mAP"] <= 1 and report["probe"]["split"] == "train" for report in reports)
    assert "3 queries scored against 6 gallery images" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("| resnet_ibn_test | untrained |")
