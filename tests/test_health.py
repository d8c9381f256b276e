"""Training monitor and warnings of a run that does not learn, on synthetic metrics; checks on resuming a run."""

import math
import time

import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.distillation import monitor
from cion_jax.distillation.health import concerns
from cion_jax.distillation.loader import Batch
from cion_jax.distillation.provenance import check_continuation, fingerprint
from cion_jax.runtime.metrics import MetricsLog, read_metrics
from cion_jax.samples import SampleTable

PROTOTYPES, DIM = 1024, 64
CHANCE = math.log(PROTOTYPES)
# A healthy run: the teacher is peaked, all prototypes are used, and the student has not converged.
GOOD = {
    "loss": 4.0,
    "teacher_entropy": 2.5,
    "mean_entropy": 0.9 * CHANCE,
    "kl": 1.5,
    "feature_std": 0.7 / math.sqrt(DIM),
    "gradient_norm": 1.0,
}


@pytest.mark.parametrize(
    ("metrics", "names", "advice"),
    [
        ({}, [], ""),
        ({"mean_entropy": 0.01, "teacher_entropy": 0.01}, ["collapse to one prototype"], "Raise"),
        ({"teacher_entropy": CHANCE - 1e-3, "kl": 1e-3}, ["collapse to uniform"], "Lower loss.teacher_temperature"),
        ({"kl": 0.001}, ["nothing left to learn"], "views"),
        ({"loss": CHANCE + 0.01}, ["loss at chance"], "learning_rate"),
        ({"loss": 1.2 * CHANCE}, ["divergence"], "Lower optimizer.learning_rate"),
        ({"feature_std": 1e-4}, ["features collapsed"], "Lower optimizer.learning_rate"),
        ({"mean_entropy": 0.0, "feature_std": 0.0}, ["collapse to one prototype", "features collapsed"], "Raise"),
    ],
)
def test_concerns_are_named_with_what_to_change(metrics, names, advice):
    signs = concerns(GOOD | metrics, prototypes=PROTOTYPES, embed_dim=DIM)
    assert list(signs) == names
    assert advice in "".join(signs.values())


@pytest.fixture
def printed(monkeypatch):
    lines = []
    monkeypatch.setattr("cion_jax.runtime.metrics._tensorboard", lambda *_: None)  # seconds to import
    monkeypatch.setattr(monitor.console, "print", lambda text, **_: lines.append(text))
    return lines


def make_monitor(log):
    return monitor.TrainingMonitor(
        log,
        batch_size=8,
        total_steps=10,
        learning_from=1,
        concerns=lambda values: concerns(values, prototypes=PROTOTYPES, embed_dim=DIM),
    )


def batch(replaced=0):
    return Batch(np.zeros((8, 2, 2, 3), np.uint8), np.ones((8, 2), np.int32), np.arange(8), replaced)


def reports(folder, rows, replaced=0):
    """Reports `rows` of synthetic metrics at steps 0, 1, ..., one batch each; returns the lines of the log."""
    with MetricsLog(folder / "metrics.jsonl", first_step=0) as log:
        training_monitor = make_monitor(log)
        for step, metrics in enumerate(rows):
            training_monitor.next_batch(iter([batch(replaced)]))
            given = {name: np.float32(value) for name, value in metrics.items()}
            training_monitor.report(step, given)
    return read_metrics(folder / "metrics.jsonl")


def test_a_warning_comes_once_after_the_warm_up_and_again_when_it_comes_back(tmp_path, printed):
    flat = GOOD | {"feature_std": 0.0}
    reports(tmp_path, [flat, flat, flat, GOOD, flat])
    assert [line.split(":")[0].removeprefix("[yellow]") for line in printed] == [
        "Step 1, features collapsed",
        "Step 4, features collapsed",
    ]


def test_a_log_line_covers_the_steps_since_the_previous_line(tmp_path, printed):
    line, _ = reports(tmp_path, [GOOD, GOOD], replaced=3)
    assert line["step"] == 0 and line["undecodable_images"] == 3
    assert len(printed) == 1 and "images that cannot be decoded" in printed[0] and "3 images" in printed[0]
    assert line["kl"] == pytest.approx(GOOD["loss"] - GOOD["teacher_entropy"])
    assert line["images_per_second"] > 0 and 0 <= line["input_wait"] <= 1


def test_a_nan_stops_training_with_its_name_and_step(tmp_path, printed):
    with pytest.raises(ValueError, match=r"gradient_norm is nan at step 2: .*last checkpoint is intact"):
        reports(tmp_path, [GOOD, GOOD, GOOD | {"gradient_norm": float("nan")}])
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1]


def test_the_step_that_diverged_is_named_though_lines_are_far_between(tmp_path, printed):
    with MetricsLog(tmp_path / "metrics.jsonl", first_step=0) as log:
        training_monitor = make_monitor(log)
        with pytest.raises(ValueError, match="loss is nan at step 3"):
            for step in range(50):
                training_monitor.next_batch(iter([batch()]))
                loss = jnp.asarray(float("nan") if step >= 3 else 5.0)
                training_monitor.started(step, {"loss": loss, "gradient_norm": jnp.asarray(1.0)})
    assert step <= 7


def test_input_wait_is_time_in_which_no_step_was_running(tmp_path, printed):
    """Steps of 0.1 s: no wait for input of 0.05 s per batch; half of the time for input of 0.2 s."""

    class Step:  # a stand-in for an array that is still being computed
        def __init__(self):
            self.ends = time.perf_counter() + 0.1

        def __array__(self, dtype=None, copy=None):
            time.sleep(max(0.0, self.ends - time.perf_counter()))
            return np.asarray(1.0)

    def share(seconds):
        def batches():
            while True:
                time.sleep(seconds)
                yield batch()

        with MetricsLog(tmp_path / f"{seconds}.jsonl", first_step=0) as log:
            training_monitor, source = make_monitor(log), batches()
            for step in range(6):
                training_monitor.next_batch(source)
                training_monitor.started(step, {"loss": Step(), "gradient_norm": Step()})
            training_monitor.report(5, {name: np.float32(value) for name, value in GOOD.items()})
        return read_metrics(tmp_path / f"{seconds}.jsonl")[-1]["input_wait"]

    assert share(0.05) < 0.2 and 0.4 < share(0.2) < 0.75


def test_off_a_terminal_a_line_a_minute_says_how_far_it_is(tmp_path, printed, monkeypatch):
    monkeypatch.setattr(monitor, "_LINE_SECONDS", 0.0)
    reports(tmp_path, [GOOD, GOOD])
    assert [line.split(",")[0] for line in printed] == ["step 1 of 10", "step 2 of 10"]
    assert "images/s" in printed[0] and "input wait" in printed[0] and printed[0].endswith("left")


def about(identities, **changes):
    table = SampleTable.from_columns(file_path=["a.jpg", "b.jpg"], identity=identities)
    return {
        "config": '{"epochs": 3, "views": {"size": 2}}',
        "data": fingerprint(table),
        "stages": [],
        "versions": {},
    } | changes


def test_other_data_are_refused_unless_allowed(printed):
    saved, now = about([0, 1]), about([0, 0])
    with pytest.raises(ValueError, match="allow_changed_data=True"):
        check_continuation(saved, now, allow_changed_data=False)
    check_continuation(saved, now, allow_changed_data=True)
    assert len(printed) == 1 and "Going on although the samples differ" in printed[0]


def test_another_number_of_steps_is_refused(printed):
    saved, now = about([0, 1], stages=[[2, 0, 10, 0, 5]]), about([0, 1], stages=[[2, 0, 10, 0, 3]])
    with pytest.raises(ValueError, match="batch size, epochs or curriculum differ"):
        check_continuation(saved, now, allow_changed_data=False)


def test_changed_settings_and_versions_are_reported(printed):
    saved, now = about([0, 1], versions={"jax": "1"}), about([0, 1], versions={"jax": "2"})
    now["config"] = '{"epochs": 3, "views": {"size": 4}}'
    check_continuation(saved, now, allow_changed_data=False)
    assert [line.split("[/]")[0] for line in printed] == ["[yellow]config.views.size", "[yellow]versions.jax"]
