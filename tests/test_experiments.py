"""Experiments: statistics by hand, and runs that are planned, shared, kept and resumed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from cion_jax.configs import finetune
from cion_jax.configs.ablation import ROWS
from cion_jax.pipeline.experiments import finetuning, runs
from cion_jax.pipeline.experiments.catalogue import EXPERIMENTS, Experiment
from cion_jax.pipeline.experiments.experiment import run_experiment
from cion_jax.pipeline.experiments.results import fitted, markdown, summarise
from cion_jax.pipeline.experiments.runs import training_seconds
from cion_jax.pipeline.experiments.statistics import fit_line, mean
from cion_jax.pipeline.stages import STAGES
from cion_jax.samples import SampleTable, write_samples
from tests import tiny, tiny_market

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("n", [2, 3, 10, 50])
def test_means_have_students_intervals(n):
    values = np.random.default_rng(n).normal(0.5, 0.1, n)
    low, high = scipy.stats.t.interval(0.95, n - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    found = mean(values)
    np.testing.assert_allclose([found.value - found.half_width, found.value + found.half_width], [low, high], rtol=1e-9)


def test_mean_and_interval_by_hand():
    # s = 1, t(2) = 4.302653, and 4.302653 / sqrt(3) = 2.484138
    assert mean([1, 2, 3]) == pytest.approx((2, 2.484138), rel=1e-6)
    assert mean([7]) == (7, None)
    with pytest.raises(ValueError, match="no values"):
        mean([])


@pytest.mark.parametrize("n", [3, 10, 30])
def test_lines_are_those_of_scipy(n):
    rng = np.random.default_rng(n)
    x = rng.uniform(1, 100, n)
    y = 3 * x + 5 + rng.normal(0, 20, n)
    line, expected = fit_line(x, y), scipy.stats.linregress(x, y)
    spread = scipy.stats.t.ppf(0.975, n - 2) * expected.stderr
    found = line.slope.value, line.slope.half_width, line.intercept, line.r_squared
    np.testing.assert_allclose(found, (expected.slope, spread, expected.intercept, expected.rvalue**2), rtol=1e-9)


def test_lines_by_hand():
    # y = 1.5 x + 1/3 leaves 1/6, -1/3, 1/6: SS 1/6 of 14/3, and with t(1) = 12.7062 +- 12.7062 sqrt(1/12) = 3.66797
    line = fit_line([1, 2, 3], [2, 3, 5])
    assert line.slope == pytest.approx((1.5, 3.66797), rel=1e-5)
    assert (line.intercept, line.r_squared) == pytest.approx((1 / 3, 1 - 1 / 28))
    assert fit_line([1, 3], [2, 6]) == ((2, None), 0, 1)
    assert fit_line([1, 2], [4, 4]).r_squared == 1
    with pytest.raises(ValueError, match="two x or more, got 3"):
        fit_line([2, 2, 2], [1, 2, 3])


def write_log(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"step": step, "images_per_second": speed}) + "\n" for step, speed in lines))


def test_training_seconds_are_those_between_the_lines(tmp_path):
    log = tmp_path / "metrics.jsonl"
    write_log(log, [(9, 40.0), (19, 80.0), (22, 24.0)])  # 10, 10 and 3 steps of 16 images
    assert training_seconds(log, steps=23, batch_size=16) == pytest.approx(4 + 2 + 2)
    with pytest.raises(ValueError, match="23 of 30 steps; remove"):
        training_seconds(log, steps=30, batch_size=16)
    with pytest.raises(ValueError, match="0 of 23 steps"):
        training_seconds(tmp_path / "nothing.jsonl", steps=23, batch_size=16)


def measured(seed, images, seconds, score):
    scores = {"scores": {"mAP": score, "rank1": score + 0.1}, "untrained": {"mAP": 0.1, "rank1": 0.2}}
    return {"seed": seed, "identities": 8, "images": images, "steps": 9, "seconds": seconds} | scores


def test_tables_of_scores_say_what_was_measured():
    experiment = Experiment("Title", "what", {"instance": "an image", "identity": "an identity"})
    found = {
        "instance": [measured(seed, 1000, 5.0, score) for seed, score in enumerate((0.2, 0.3, 0.4))],
        "identity": [measured(seed, 1234, 6.0, 0.5) for seed in range(3)],
    }
    summary = summarise(experiment, found, {"model": "m"})
    # s = 0.1, so 100 * 0.1 * 4.302653 / sqrt(3) = 24.8
    lines = markdown(experiment, summary).splitlines()
    assert "| (untrained) |  |  |  | 10.0 ± 0.0 % | 20.0 ± 0.0 % |" in lines
    assert "| an image | 8 | 1,000 | 9 | 30.0 ± 24.8 % | 40.0 ± 24.8 % |" in lines
    assert "| an identity | 8 | 1,234 | 9 | 50.0 ± 0.0 % | 60.0 ± 0.0 % |" in lines
    assert summary["rows"][0]["runs"] == found["instance"] and summary["seeds"] == [0, 1, 2]
    one = summarise(experiment, {row: some[:1] for row, some in found.items()}, {})
    text = markdown(experiment, one)
    assert "| an image | 8 | 1,000 | 9 | 20.0 % | 30.0 % |" in text and "One seed (0) gives no interval" in text


def test_tables_of_time_have_the_line():
    experiment = Experiment("Title", "share", {"data10": "10 %", "data20": "20 %"}, timed=True)
    found = {"data10": [measured(0, 1000, 5.0, 0)], "data20": [measured(0, 3000, 9.0, 0)]}
    summary = summarise(experiment, found, {})
    assert "| 20 % | 8 | 3,000 | 9 | 9.0 |" in markdown(experiment, summary)
    expected = "Least squares over all runs: 2 s for every 1,000 images, 3.0 s at no image, R² = 1.0000."
    assert fitted(summary) == expected and expected in markdown(experiment, summary)


def test_every_row_of_the_tables_exists():
    assert {row for experiment in EXPERIMENTS.values() for row in experiment.rows} <= set(ROWS)


TRACKLET = np.repeat(np.arange(40), 6)


@pytest.fixture
def config(tmp_path):
    """A config of 40 tracklets in four videos, with a benchmark of empty files and weights that are never read."""
    columns = {"video": [f"v{tracklet % 4}" for tracklet in TRACKLET], "tracklet": TRACKLET, "identity": TRACKLET // 2}
    files = [f"{row}.jpg" for row in range(len(TRACKLET))]
    write_samples(SampleTable.from_columns(file_path=files, **columns), tmp_path / "crops.parquet")
    for folder in ("query", "bounding_box_test"):
        (tmp_path / "market" / folder).mkdir(parents=True)
        (tmp_path / "market" / folder / "0001_c1s1_000001_00.jpg").touch()
    (tmp_path / "extractor.pth").touch()
    config = tiny.get_config()
    config.stages = ("extract", "correlate", "pretrain")
    config.data.samples, config.data.images = str(tmp_path / "crops.parquet"), str(tmp_path)
    config.extractor.weights, config.evaluate.root = str(tmp_path / "extractor.pth"), str(tmp_path / "market")
    return config


class Stages:
    """Replaces `run_stages`: writes the stages' output files without training, and records its calls."""

    def __init__(self):
        self.done, self.interrupt_after = [], None

    def __call__(self, config, workdir):
        for name in config.stages:
            if STAGES[name].marker(workdir).exists():
                continue
            if len(self.done) == self.interrupt_after:
                raise KeyboardInterrupt
            getattr(self, f"_{name}")(config, workdir)
            STAGES[name].marker(workdir).touch()
            self.done.append(f"{name} {workdir.root.parent.name}/{workdir.root.name}")

    def _extract(self, config, workdir):
        workdir.features.parent.mkdir(parents=True)

    def _correlate(self, config, workdir):
        workdir.correlation.mkdir()
        found = TRACKLET // (1 + config.correlate.levels)
        files = [f"{row}.jpg" for row in range(len(TRACKLET))]
        table = SampleTable.from_columns(file_path=files, identity=found)
        write_samples(table, workdir.correlation / "identities.parquet")

    def _pretrain(self, config, workdir):
        (by,) = config.pretrain.group_by
        identities = runs.trained_on(config, runs.read_samples(config.data.samples), by)["identity"]
        steps = runs.plan(config, identities, devices=8).total_steps
        a_second = float(config.pretrain.batch_size)  # for each step
        write_log(workdir.runs / by / "metrics.jsonl", [(steps - 1, a_second)])

    def _evaluate(self, config, workdir):
        (by,) = config.pretrain.group_by
        score = {"mAP": 0.1 * (1 + config.seed), "rank1": 0.5}
        workdir.scores.write_text(json.dumps({by: score, "untrained": {"mAP": 0.05, "rank1": 0.1}}))


@pytest.fixture
def stages(monkeypatch):
    fake = Stages()
    monkeypatch.setattr(runs, "run_stages", fake)
    return fake


def trainings(stages):
    return [text.removeprefix("pretrain ") for text in stages.done if text.startswith("pretrain")]


def test_an_interrupted_experiment_goes_on_where_it_was(config, stages, tmp_path):
    stages.interrupt_after = 6  # extract, correlate, two whole runs
    with pytest.raises(KeyboardInterrupt):
        run_experiment("table4", config, tmp_path / "w", seeds=2)
    assert trainings(stages) == ["moco/seed0", "instance/seed0"]
    assert not list((tmp_path / "w").glob("table4.*"))
    stages.interrupt_after = None
    text = run_experiment("table4", config, tmp_path / "w", seeds=2)
    assert trainings(stages) == [
        f"{row}/seed{seed}" for seed in (0, 1) for row in ("moco", "instance", "tracklet", "identity")
    ]
    assert "| an identity (CION) | 10 | 240 |" in text and "15.0 ± 63.5 %" in text  # 12.7062 * 10 sqrt(1/2) / sqrt(2)
    assert (tmp_path / "w" / "table4.md").read_text() == text
    assert (tmp_path / "w" / "table4.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "w" / "table4.json").read_text())["rows"]) == 4
    before = list(stages.done)
    assert run_experiment("table4", config, tmp_path / "w", seeds=2) == text and stages.done == before
    run_experiment("table4", config, tmp_path / "w", seeds=3)
    assert trainings(stages)[8:] == ["moco/seed2", "instance/seed2", "tracklet/seed2", "identity/seed2"]


def test_networks_are_fine_tuned_before_they_are_scored(config, stages, monkeypatch, tmp_path):
    def fake(recipe, samples, folder, *, benchmark):
        tuned.append((folder.relative_to(tmp_path / "w/runs").as_posix(), recipe.weights))
        score = 0.3 if recipe.from_scratch else 0.6
        return {"last": dict.fromkeys(("mAP", "rank1", "rank5", "rank10", "mINP"), score)}

    def recipe(of_experiment, method, shared):
        small = finetune.get_config("market1501/resnet_test")
        small.method, small.data.root = method, str(market)
        return small

    tuned = []
    (tmp_path / "fine").mkdir()
    market = tiny_market.write(tmp_path / "fine")
    monkeypatch.setattr(finetuning, "fine_tune", fake)
    monkeypatch.setattr(runs, "finetuning_recipe", recipe)
    text = run_experiment("table4", config, tmp_path / "w", seeds=1, finetune="supervised")
    assert [folder for folder, _ in tuned] == [
        f"{row}/seed0/finetune-supervised" for row in ("moco", "scratch", "instance", "tracklet", "identity")
    ]
    assert [None if weights is None else "/".join(Path(weights).parts[-4:]) for _, weights in tuned] == [
        "seed0/pretrain/image/teacher.pth",
        None,
        "seed0/pretrain/image/teacher.pth",
        "seed0/pretrain/tracklet/teacher.pth",
        "seed0/pretrain/identity/teacher.pth",
    ]
    assert "| (from scratch) |  |  |  | 30.0 % | 30.0 % | 5.0 % |" in text
    assert "| 60.0 % | 60.0 % | 10.0 % |" in text and "after fine-tuning (supervised)" in text
    before = list(tuned)
    assert run_experiment("table4", config, tmp_path / "w", seeds=1, finetune="supervised") == text and tuned == before
    with_mgn = run_experiment("table4", config, tmp_path / "w", seeds=1, finetune="mgn")
    assert "| 60.0 % | 60.0 % | 10.0 % | 93.3 / 97.3 |" in with_mgn  # Table 4 of the paper
    with pytest.raises(ValueError, match="fig7 compares times of pre-training"):
        run_experiment("fig7", config, tmp_path / "w", seeds=1, finetune="mgn")


def test_experiments_share_what_is_the_same(config, stages, tmp_path):
    config.pretrain.batch_size, config.pretrain.curriculum.images_per_identity = 8, (1, 1)
    run_experiment("fig7", config, tmp_path / "w", seeds=1)
    assert len(trainings(stages)) == 10 and not [text for text in stages.done if text.startswith("evaluate")]
    fit = json.loads((tmp_path / "w" / "fig7.json").read_text())["fit"]
    # 240 images in 3 epochs of 30 batches, a second each: 375 s for 1,000 images
    assert fit["seconds_per_1000_images"]["value"] == pytest.approx(375) and fit["r_squared"] == pytest.approx(1)
    run_experiment("fig6", config, tmp_path / "w", seeds=1)
    assert len(trainings(stages)) == 10  # scored, not trained again
    text = run_experiment("fig5", config, tmp_path / "w", seeds=1)
    assert trainings(stages)[10:] == ["level0/seed0", "level1/seed0", "level2/seed0"]  # level3 is data100
    assert "| none | 40 | 240 |" in text and "| + cross video | 10 | 240 |" in text
    assert stages.done.count("extract w/shared") == 1 and stages.done.count("correlate w/shared") == 4


@pytest.mark.parametrize(
    ("which", "settings", "message"),
    [
        ("fig6", {"pretrain.batch_size": 64}, "data10, seed 0: .* fewer than one batch of 64"),
        ("fig5", {"stages": ("pretrain",)}, "level0 needs identity correlation.*stages"),
        ("table4", {"evaluate.root": "nowhere"}, "--config.evaluate.root=.*'nowhere' does not exist"),
        ("table4", {"evaluate.root": "."}, "no query/ beside"),
        ("table4", {"data.samples": "untracked.json"}, "tracklet, seed 0: .* no column 'tracklet'"),
    ],
)
def test_impossible_settings_are_refused_before_training(
    config, stages, tmp_path, monkeypatch, which, settings, message
):
    monkeypatch.chdir(tmp_path)
    Path("untracked.json").write_text(json.dumps([{"id": row // 2, "file_path": f"{row}.jpg"} for row in range(48)]))
    config.pretrain.batch_size, config.pretrain.curriculum.images_per_identity = 8, (1, 1)
    config.update_from_flattened_dict(settings)
    with pytest.raises(ValueError, match=message):
        run_experiment(which, config, tmp_path / "w", seeds=1)
    assert not trainings(stages)


def test_other_settings_need_another_folder(config, stages, tmp_path):
    run_experiment("table4", config, tmp_path, seeds=1)
    config.pretrain.epochs += 1
    with pytest.raises(ValueError, match=r"pretrain.epochs: 3 -> 4.*another --workdir"):
        run_experiment("table4", config, tmp_path, seeds=1)


@pytest.mark.slow
def test_a_row_is_trained_and_scored(tmp_path):
    """The stages themselves, in a process of its own: one device compiles faster than eight."""
    write_benchmark(tiny.write_crops(tmp_path / "crops"), tmp_path)
    program = "import sys; from tests.test_experiments import one_row; one_row(sys.argv[1])"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, env=environment, check=True)
    (row,) = json.loads((tmp_path / "w" / "table4.json").read_text())["rows"]
    (run,) = row["runs"]
    assert (run["identities"], run["images"], run["steps"]) == (48, 48, 3) and run["seconds"] > 0
    evaluation = json.loads((tmp_path / "w" / "runs" / "instance" / "seed0" / "evaluation.json").read_text())
    assert run["scores"] == evaluation["image"] and run["untrained"] == evaluation["untrained"]
    assert row["mAP"] == {"value": evaluation["image"]["mAP"], "half_width": None}
    assert (tmp_path / "w" / "table4.png").read_bytes().startswith(b"\x89PNG")


def one_row(folder):
    """The first row of Table 4, three steps of it, on the crops in `folder`."""
    table4 = EXPERIMENTS["table4"]
    EXPERIMENTS["table4"] = table4._replace(rows={"instance": table4.rows["instance"]})
    folder, config = Path(folder), tiny.get_config()
    config.model = "vit_test"
    config.data.samples, config.data.images = str(folder / "crops.parquet"), str(folder / "crops")
    config.evaluate.root, config.evaluate.size = str(folder / "market"), (32, 16)
    config.pretrain.epochs, config.pretrain.views.local_views = 1, 0
    run_experiment("table4", config, folder / "w", seeds=1)


@pytest.mark.slow
def test_unknown_names_are_refused_with_the_known_ones(tmp_path):
    arguments = ["-m", "cion_jax.experiments", "--which=table5", f"--workdir={tmp_path}"]
    told = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode != 0 and "table4|fig5|fig6|fig7" in told.stderr and "Traceback" not in told.stderr
    assert not list(tmp_path.iterdir())


def write_benchmark(table, folder):
    """The crops of every identity as queries of one camera and gallery of another."""
    for row, (file, identity) in enumerate(zip(table["file_path"], table["identity"])):
        side, camera = ("query", 1) if row % 2 else ("bounding_box_test", 2)
        (folder / "market" / side).mkdir(parents=True, exist_ok=True)
        name = f"{identity + 1:04d}_c{camera}s1_{row:06d}_00.jpg"
        shutil.copy(folder / "crops" / file, folder / "market" / side / name)
