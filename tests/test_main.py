"""The commands as people run them: configs, refusals, and a small pipeline that is killed and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from absl import flags
from ml_collections import config_flags

from cion_jax.configs import base, demo
from cion_jax.models import list_models
from cion_jax.pipeline import stages
from cion_jax.pipeline.settings import remember_config, remembered
from cion_jax.pipeline.stages import STAGES, run_stages
from cion_jax.pipeline.validate import missing_data
from cion_jax.pipeline.workdir import Workdir
from configs import convnext_b, resnet50_ibn, vit_b, zoo

ROOT = Path(__file__).parent.parent
# Settings that make the demo small enough for a test; everything else is as it is shown to users.
SMALL = {
    "street.labelled_people": 12,
    "street.crawl_people": 10,
    "street.crawl_videos": 3,
    "street.people_per_video": 5,
    "street.benchmark_people": 4,
    "street.benchmark_distractors": 2,
    "street.benchmark_junk": 2,
    "extractor.training.steps": 4,
    "extractor.training.batch_size": 16,
    "pretrain.batch_size": 16,
    "pretrain.epochs": 1,
    "pretrain.checkpoint.every_steps": 5,
}


def command(*arguments, **options):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def small_demo(workdir):
    settings = [f"--config.{name}={value}" for name, value in SMALL.items()]
    return command("cion_jax.main", "--config=configs/demo.py", f"--workdir={workdir}", *settings)


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)


@pytest.mark.slow
def test_the_pipeline_survives_kills_and_skips_what_is_done(tmp_path):
    for awaited in ("street", "pretrain/tracklet/checkpoints/5"):
        process = small_demo(tmp_path)
        wait_for(tmp_path / awaited, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done_before = {p: p.stat().st_mtime_ns for p in (tmp_path / "extractor.pth", tmp_path / "features.json")}
    process = small_demo(tmp_path)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "Continuing from step" in output
    assert all(path.stat().st_mtime_ns == then for path, then in done_before.items())
    check_results(tmp_path, output)

    again, _ = small_demo(tmp_path).communicate()
    assert "pretrain took" not in again
    assert "Retrieval on the benchmark" in again

    changed = command("cion_jax.main", "--config=configs/demo.py", f"--workdir={tmp_path}")
    refusal, _ = changed.communicate()
    assert changed.returncode == 2 and "another config" in refusal and "Traceback" not in refusal


def check_results(workdir, output):
    report = json.loads((workdir / "report.json").read_text())
    assert [level["level"] for level in report["correlation"]["levels"]] == [0, 1, 2, 3]
    assert set(report["retrieval"]) == {"untrained", "tracklet", "identity", "extractor"}
    for picture in ("loss.png", "street/contact_sheet.png"):
        assert (workdir / picture).read_bytes().startswith(b"\x89PNG")
    page = (workdir / "report.html").read_text()
    assert "Ranked lists" in page and page.count("</strong>: ") == 1  # only ResNets' attention is left out
    checkpoint = torch.load(workdir / "resnet_test.pth", weights_only=True)
    assert all(key.startswith("module.backbone.") for key in checkpoint["teacher"])
    assert str(workdir / "resnet_test.pth") in output.replace("\n", "")
    assert not list(workdir.rglob("*.tmp"))


@pytest.mark.slow
def test_missing_data_and_typos_fail_at_once_with_the_way_out():
    missing = command("cion_jax.main", "--config=configs/vit_b.py", "--workdir=unused")
    typo = command("cion_jax.main", "--config=configs/demo.py", "--workdir=unused", "--config.pretrain.batchsize=9")
    output, _ = missing.communicate()
    assert missing.returncode == 2 and "--config.data.samples" in output and "configs/demo.py" in output
    output, _ = typo.communicate()
    assert typo.returncode != 0 and "did you mean --config.pretrain.batch_size" in output
    assert not (ROOT / "unused").exists()


@pytest.mark.parametrize("config", [vit_b, resnet50_ibn, convnext_b])
def test_configs_need_data_and_say_so(config, tmp_path):
    built = config.get_config()
    assert "--config.data.samples" in missing_data(built) and "demo" in missing_data(built)
    built.data.samples = built.data.images = str(tmp_path)
    assert missing_data(built) is None


def test_the_demo_needs_no_data_and_every_model_has_a_config():
    assert missing_data(demo.get_config()) is None
    assert {zoo.get_config(name).model for name in list_models()} == set(list_models())
    with pytest.raises(ValueError, match="no such model"):
        zoo.get_config("resnet5")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet50_inb"}, "resnet50_ibn"),
        ({"stages": ("pretain",)}, "pretrain"),
        ({"stages": ("extractor", "extract")}, "street"),
        ({"pretrain": {"group_by": ()}}, "one or more of identity, tracklet"),
    ],
)
def test_configs_that_cannot_run_are_refused(changes, message, tmp_path):
    config = base.get_config()
    config.data.samples = config.data.images = str(tmp_path)
    config.update(changes)
    with pytest.raises(ValueError, match=message):
        if refusal := missing_data(config):
            raise ValueError(refusal)


def test_a_folder_belongs_to_one_config(tmp_path):
    config = demo.get_config()
    remember_config(config, Workdir(tmp_path, config))
    config.stages = ("street",)
    config.pretrain.loader_threads += 1
    config.pretrain.checkpoint.keep += 1
    config.pretrain.allow_changed_data = True
    remember_config(config, Workdir(tmp_path, config))  # stages may come and go, and what changes no result
    config.pretrain.batch_size = 48
    remember_config(config, Workdir(tmp_path, config))  # nothing has been trained yet
    (tmp_path / "pretrain/tracklet").mkdir(parents=True)
    (tmp_path / "pretrain/tracklet/teacher.pth").touch()
    config.evaluate.root = "2024"  # text, though it looks like a number
    remember_config(config, Workdir(tmp_path, config))  # no network has been scored yet
    assert remembered(tmp_path).evaluate.root == "2024" and remembered(tmp_path).pretrain.batch_size == 48
    config.pretrain.batch_size = 32
    with pytest.raises(ValueError, match=r"pretrain.batch_size: 48 -> 32.*another --workdir"):
        remember_config(config, Workdir(tmp_path, config))


@pytest.mark.parametrize(("given", "half_width"), [("500", 500), ("all", "all"), (None, 1000)])
def test_half_width_is_a_number_or_all(given, half_width, tmp_path, monkeypatch):
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True)
    arguments = ["main", f"--config={ROOT}/configs/demo.py"]
    if given is not None:
        arguments.append(f"--config.correlate.half_width={given}")
    monkeypatch.setattr(sys, "argv", arguments)  # where config_flags looks for overrides
    values(arguments)
    config, passed = values.config, []
    config.stages = ("correlate",)
    monkeypatch.setattr(stages, "aligned_samples", lambda features: features)
    monkeypatch.setattr(stages, "correlate_to", lambda *_, **settings: passed.append(settings))
    remember_config(config, Workdir(tmp_path, config))
    kept = json.loads((tmp_path / "config.json").read_text())["correlate.half_width"]
    assert kept == str(half_width)  # as workdirs had it when the setting was an integer
    run_stages(config, Workdir(tmp_path, config))
    remember_config(config, Workdir(tmp_path, config), begun=["correlate"])
    assert passed[0]["half_width"] == remembered(tmp_path).correlate.half_width == half_width
    assert type(passed[0]["half_width"]) is type(half_width)


def test_a_wrong_half_width_is_reported_before_anything_is_extracted():
    config = demo.get_config()
    config.correlate.half_width = "every"
    with pytest.raises(ValueError, match="half_width='every': expected an integer of 0 or more"):
        missing_data(config)


def test_a_wrong_benchmark_is_reported_before_training(tmp_path):
    config = base.get_config()
    config.stages = ("pretrain", "evaluate")
    config.data.samples = config.data.images = config.evaluate.root = str(tmp_path)
    with pytest.raises(ValueError, match="no query/ beside a bounding_box_test/"):
        missing_data(config)


def test_time_of_an_interrupted_stage_is_counted(tmp_path, monkeypatch):
    config = demo.get_config()
    config.stages = ("street", "export")
    workdir, tries = Workdir(tmp_path, config), []

    def street(config, workdir):
        tries.append(time.sleep(0.2))
        if len(tries) == 1:
            raise KeyboardInterrupt
        workdir.street.mkdir()

    for name, stage in (("street", street), ("export", lambda config, workdir: None)):
        monkeypatch.setitem(STAGES, name, STAGES[name]._replace(run=stage))
    with pytest.raises(KeyboardInterrupt):
        run_stages(config, workdir)
    run_stages(config, workdir)
    taken = json.loads(workdir.seconds.read_text())
    assert taken.keys() == {"street", "export"} and taken["street"] >= 0.4
