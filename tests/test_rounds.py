"""Bootstrapped rounds: when they end, what stays when one collapses, refusals, and a run that is killed in a round."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from cion_jax.configs import base, bootstrap
from cion_jax.pipeline import rounds as module
from cion_jax.pipeline.rounds import agreement, check_frames, round_run, run_rounds, settled
from cion_jax.pipeline.settings import remember_config
from cion_jax.pipeline.validate import missing_data
from cion_jax.pipeline.workdir import Workdir
from cion_jax.reporting.page import Page, render
from cion_jax.reporting.rounds import print_rounds, rounds_section
from cion_jax.runtime.files import write_json
from cion_jax.samples import SampleTable, read_samples, write_samples

ROOT = Path(__file__).parent.parent
IMAGES = 24
SMALL = {
    "street.crawl_people": 12,
    "street.crawl_videos": 8,
    "street.people_per_video": 7,
    "extractor.training.steps": 4,
    "extractor.training.batch_size": 16,
    "rounds.limit": 2,
    "stages": "('street','rounds')",
}


def crawl(**changes):
    columns = {"video": np.arange(IMAGES) // 12, "tracklet": np.arange(IMAGES) // 4, "frame": np.arange(IMAGES) % 4}
    return SampleTable.from_columns(file_path=[f"{i}.jpg" for i in range(IMAGES)], **(columns | changes))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs rounds that find the given identities; an error instead of identities is raised in that round."""
    write_samples(crawl(), tmp_path / "s.parquet")
    monkeypatch.setattr(module.console, "quiet", True)

    def run(found, **settings):
        config = base.get_config()
        config.stages = ("rounds",)
        config.data.samples = config.data.images = str(tmp_path / "s.parquet")
        config.rounds.update(settings)
        workdir, trained = Workdir(tmp_path / "run", config), []

        def stages(derived, folder):
            trained.append((folder.root.name, derived))
            if "correlate" not in derived.stages:
                return
            identities = found[int(folder.root.name)]
            if isinstance(identities, Exception):
                raise identities
            write_samples(crawl(identity=np.asarray(identities)), folder.identities)
            level = {"noise": 1.0, "noise_consistency": 1.0, "noise_discrimination": 0.0}
            write_json(folder.correlation_report, {"levels": [level], "background": {"dropped": False}})
            sigma = {"proposed": 0.5}
            write_json(folder.calibration, {"sigma_cst": sigma, "sigma_drm": sigma, "support": 0.6})
            write_json(folder.seconds, {"correlate": 1.0})

        run_rounds(config, workdir, stages)
        kept = read_samples(workdir.identities)["identity"]
        return json.loads(workdir.rounds_report.read_text()), kept, trained

    return run


PAIRS, TRIPLES = np.arange(IMAGES) // 2, np.arange(IMAGES) // 3
ALL_ONE = np.zeros(IMAGES, int)


def test_rounds_settle_when_identities_stay(run):
    report, kept, trained = run([TRIPLES, PAIRS, PAIRS + 7, TRIPLES], limit=4)
    assert report["ended"] == "identities settled in round 2" and report["good"] == 2
    assert [entry["agreement"] is None for entry in report["rounds"]] == [True, False, False]
    assert report["rounds"][2]["agreement"] == 1 > report["rounds"][1]["agreement"]
    np.testing.assert_array_equal(kept, PAIRS + 7)
    first, second = trained[0][1], trained[1][1]
    assert first.stages[0] == "extractor" and first.extractor.group_by == "tracklet"
    assert second.extractor.group_by == "identity"
    np.testing.assert_array_equal(read_samples(second.extractor.labelled)["identity"], TRIPLES)


def test_rounds_end_at_the_limit(run):
    report, kept, _ = run([TRIPLES, PAIRS], limit=2)
    assert report["ended"] == "limit of 2 reached" and report["good"] == 1 and len(report["rounds"]) == 2
    np.testing.assert_array_equal(kept, PAIRS)


@pytest.mark.parametrize("collapse", [ALL_ONE, ValueError("links between tracklets chain at every sigma_drm")])
def test_the_last_good_round_stays_when_one_collapses(run, collapse):
    report, kept, _ = run([TRIPLES, PAIRS, collapse, PAIRS], limit=4)
    np.testing.assert_array_equal(kept, PAIRS)
    assert report["good"] == 1 and report["ended"].startswith("round 2 collapsed: ")
    assert "the identities of round 1 are kept" in report["ended"]
    assert ("chain at every" in report["ended"]) or ("1 identities, the largest with 100%" in report["ended"])


def test_a_first_round_without_identities_is_an_error(run):
    with pytest.raises(ValueError, match=r"the first round found no identities to train on: 1 identities"):
        run([ALL_ONE])
    with pytest.raises(ValueError, match="no threshold"):
        run([ValueError("no threshold")])


def test_distillation_takes_each_teacher_as_the_next_extractor(run, tmp_path):
    _, _, trained = run([TRIPLES, PAIRS], limit=2, train="distillation", start="image")
    (start, first), (zero, one), (_, two) = trained
    assert (start, zero) == ("start", "0") and first.pretrain.group_by == ("image",) and first.stages == ("pretrain",)
    assert one.extractor.weights.endswith("rounds/start/pretrain/image/teacher.pth")
    assert two.extractor.weights.endswith("rounds/0/pretrain/identity/teacher.pth")
    assert one.stages[-1] == "pretrain" and two.stages[-1] == "correlate"  # nobody needs the last round's teacher


def test_a_file_of_weights_is_the_first_extractor(tmp_path):
    config = bootstrap.get_config()
    config.rounds.start = "imagenet.pth"
    derived, _ = round_run(config, Workdir(tmp_path, config), 0)
    assert "extractor" not in derived.stages and derived.extractor.weights == "imagenet.pth"
    assert round_run(config, Workdir(tmp_path, config), 1)[0].stages[0] == "extractor"


def test_agreement_is_that_of_the_partitions():
    assert agreement(PAIRS, 40 - PAIRS) == 1
    half = np.where(np.arange(IMAGES) < 12, PAIRS, -1)
    assert agreement(half, half) == 1
    assert agreement(half, np.where(half < 0, half.max() + 1, half)) < 0.5  # discarded images are not one identity
    shuffled = [agreement(PAIRS, np.random.default_rng(seed).permutation(PAIRS)) for seed in range(200)]
    assert abs(np.mean(shuffled)) < 0.02  # adjusted for chance


def test_settled_needs_all_three():
    rounds = ConfigDict({"agreement": 0.9, "change": 0.05})
    before = {"identities": 100, "noise": 2.0, "agreement": 0.5}
    assert settled(before, {"identities": 104, "noise": 1.95, "agreement": 0.95}, rounds)
    for change in ({"identities": 106}, {"noise": 1.8}, {"agreement": 0.89}):
        assert not settled(before, {"identities": 100, "noise": 2.0, "agreement": 0.95} | change, rounds)


@pytest.mark.parametrize("scored", [True, False])
def test_the_report_has_a_row_for_every_round(scored, capsys):
    entry = {"sigma_cst": 0.5, "sigma_drm": 0.4, "support": 0.61, "identities": 1234, "largest": 0.02, "noise": 1.5}
    accuracy = {"pairwise": {"precision": 0.91, "recall": 0.52, "f1": 0.66}} if scored else {}
    entries = [{**entry, **accuracy, "round": r, "agreement": [None, 0.87][r]} for r in range(2)]
    report = {"rounds": entries, "good": 0, "ended": "round 2 collapsed: all in one; the identities of 1 are kept"}
    page = render(Page("t", "now", [rounds_section(report)]))
    print_rounds(report)
    for text in (page, capsys.readouterr().out):
        assert "1,234" in text and "0.87" in text and ("66.0" in text) == scored
    assert page.count("round 2 collapsed") == 2  # in words and as a warning


# Refusals


def test_tables_that_rounds_cannot_calibrate_on_are_refused():
    table = crawl()
    check_frames(table)
    with pytest.raises(ValueError, match=r"no column frame \(it has file_path, video, tracklet\)"):
        check_frames(SampleTable(table.arrow.drop_columns("frame")))
    with pytest.raises(ValueError, match="no two tracklets share a frame"):
        check_frames(crawl(frame=np.arange(IMAGES)))
    with pytest.raises(ValueError, match="no two tracklets share a frame"):
        check_frames(crawl(frame=np.full(IMAGES, -1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "supervised"}, "choose from contrastive, distillation"),
        ({"start": "nowhere.pth"}, "expected tracklet or image, or a file of weights"),
        ({"start": "image"}, "needs rounds.train='distillation'"),
        ({"limit": 0}, "expected at least 1 round"),
    ],
)
def test_settings_that_no_round_can_run_with_are_refused(settings, message):
    config = bootstrap.get_config()
    config.rounds.update(settings)
    with pytest.raises(ValueError, match=message):
        missing_data(config)


def test_a_table_without_frames_is_refused_before_training(tmp_path):
    config = base.get_config()
    config.stages = ("rounds",)
    write_samples(SampleTable(crawl().arrow.drop_columns("frame")), tmp_path / "s.parquet")
    config.data.samples = config.data.images = str(tmp_path / "s.parquet")
    with pytest.raises(ValueError, match=r"no column frame"):
        missing_data(config)


def test_a_rule_that_cannot_be_followed_is_refused_before_any_stage_runs(tmp_path):
    config = base.get_config()
    config.stages, config.correlate.rule = ("correlate",), "constrain"
    with pytest.raises(ValueError, match="expected one of closure, constrained"):
        missing_data(config)
    write_samples(SampleTable(crawl().arrow.drop_columns("frame")), tmp_path / "s.parquet")
    config.data.samples = config.data.images = str(tmp_path / "s.parquet")
    config.correlate.rule = "constrained"
    with pytest.raises(ValueError, match="add a column frame"):
        missing_data(config)
    config.correlate.rule = "closure"
    assert missing_data(config) is None


def test_rounds_that_have_begun_keep_their_settings(tmp_path):
    config = bootstrap.get_config()
    remember_config(config, Workdir(tmp_path, config))
    config.rounds.limit += 1
    remember_config(config, Workdir(tmp_path, config))
    (tmp_path / "rounds/0").mkdir(parents=True)
    config.calibrate.false_links = 0.5
    with pytest.raises(ValueError, match=r"calibrate\.false_links"):
        remember_config(config, Workdir(tmp_path, config))


def start(workdir):
    settings = [f"--config.{name}={value}" for name, value in SMALL.items()]
    line = [sys.executable, "-m", "cion_jax.main", "--config=configs/bootstrap.py", f"--workdir={workdir}", *settings]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "programs")}
    return subprocess.Popen(
        line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_a_run_killed_within_a_round_gives_the_same_identities_once_resumed(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(killed)
    while not (killed / "rounds/1/features.json").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "rounds.json").exists()
    trained = [killed / f"rounds/{number}/extractor.pth" for number in range(2)]
    before = [file.stat().st_mtime_ns for file in trained]
    assert "Bootstrapped rounds, without labels" in finish(start(killed))
    assert [file.stat().st_mtime_ns for file in trained] == before
    assert "Bootstrapped rounds" in (killed / "report.html").read_text()
    assert not list(killed.rglob("*.tmp"))

    shutil.copytree(killed / "street", whole / "street")
    finish(start(whole))
    for found in ("rounds/0/correlation", "rounds/1/correlation", "correlation"):
        one, other = (read_samples(run / found / "identities.parquet")["identity"] for run in (killed, whole))
        np.testing.assert_array_equal(one, other)
    assert len(np.unique(one[one >= 0])) > 1
    one, other = (json.loads((run / "rounds.json").read_text()) for run in (killed, whole))
    for entry in (*one["rounds"], *other["rounds"]):
        del entry["seconds"]
    assert one == other
