"""A whole training run on a few rendered rectangles: resume, bad images, output files."""

import gc
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.conversion import read_weights, signature
from cion_jax.convert import convert
from cion_jax.distillation import objectives, train
from cion_jax.models import create_model
from cion_jax.runtime.checkpoints import Checkpoints, read_checkpoint
from cion_jax.runtime.files import read_json
from cion_jax.runtime.metrics import read_metrics
from tests import processes, tiny
from tests.tiny import IDENTITIES, get_config, table_of, write_crops


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "crops"
    write_crops(folder)
    return folder


@pytest.fixture
def one_device(monkeypatch):
    make_mesh = train.make_mesh
    monkeypatch.setattr(train, "make_mesh", lambda: make_mesh(jax.devices()[:1]))


def stop_while_saving(process, folder, step):
    """Stops the process while a checkpoint of `step` or a later one is half written."""
    while True:
        assert process.poll() is None
        if half_written(folder, step):
            process.send_signal(signal.SIGSTOP)
            if half_written(folder, step):  # still: it had not ended between the two looks
                return
            process.send_signal(signal.SIGCONT)


def half_written(folder, step=0):
    return [path for path in folder.glob("*.orbax-checkpoint-tmp*") if int(path.name.split(".")[0]) >= step]


@pytest.mark.slow
def test_killed_in_the_middle_of_saves_a_run_ends_as_an_undisturbed_one(crops, tmp_path):
    def command(name, **settings):
        cache = f"--compile_cache={tmp_path / 'cache'}"
        return [*tiny.arguments(crops, tmp_path / name, checkpoint__every_steps=1, **settings), cache]

    processes.run(1, tmp_path / "logs", *command("whole"))
    whole, broken = tmp_path / "whole/identity", tmp_path / "broken/identity"
    for step in (2, 7):  # in the first stage, and after the change of K
        (process,) = processes.start(1, tmp_path / "logs", *command("broken"))
        stop_while_saving(process, broken / "checkpoints", step)
        process.kill()
        process.wait()
        assert half_written(broken / "checkpoints") and not (broken / "teacher.pth").exists()
    (log,) = processes.run(1, tmp_path / "logs", *command("broken", loader_threads=3))  # of no consequence
    assert "Continuing from step" in log and not half_written(broken / "checkpoints")
    for name in ("teacher.pth", "student.pth"):
        arrays, others = read_weights(whole / name)[0], read_weights(broken / name)[0]
        for key, value in arrays.items():
            np.testing.assert_array_equal(others[key], value, err_msg=f"{name} {key}")
    logs = [read_metrics(run / "metrics.jsonl") for run in (whole, broken)]
    steps = train.plan(tiny.get_config(), IDENTITIES, devices=1).total_steps
    assert steps == 9  # 48 images of K=1, two epochs, then of K=2: three batches of 16 in each epoch
    for log in logs:
        assert [line["step"] for line in log] == list(range(steps))
    np.testing.assert_array_equal(*([line["loss"] for line in log] for log in logs))


def wait_for_metrics(process, folder, lines):
    file = folder / "metrics.jsonl"
    while not (file.exists() and len(file.read_text().splitlines()) >= lines):
        assert process.poll() is None
        time.sleep(0.02)


@pytest.mark.slow
def test_ctrl_c_saves_and_the_second_one_ends_at_once(crops, tmp_path):
    command = [*tiny.arguments(crops, tmp_path / "run", checkpoint__every_steps=1000, epochs=3000)]
    folder = tmp_path / "run/identity"
    (process,) = processes.start(1, tmp_path / "logs", *command)
    wait_for_metrics(process, folder, 3)
    process.send_signal(signal.SIGINT)
    (code,), (log,) = processes.finish([process], tmp_path / "logs")
    _, meta = read_checkpoint(folder / "checkpoints")
    (saved,) = (int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    assert code == 130 and f"Stopped by Ctrl-C: step {saved} of 9000 is saved" in log and meta
    assert "Traceback" not in log
    (process,) = processes.start(1, tmp_path / "logs", *command)
    wait_for_metrics(process, folder, saved + 3)
    process.send_signal(signal.SIGSTOP)  # so that both arrive before it can save
    for number in (signal.SIGINT, signal.SIGCONT):
        process.send_signal(number)
    while "Saving after this step" not in (tmp_path / "logs/0.log").read_text():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    (code,), (log,) = processes.finish([process], tmp_path / "logs")
    assert code in (-signal.SIGINT, 130)  # 130 if it was quicker to save
    assert f"Continuing from step {saved}" in log and "Traceback" not in log


@pytest.fixture(scope="module")
def finished(crops, tmp_path_factory):
    """A run on eight devices in which one identity has two broken images and another none that is whole.

    The data, the folder of the run, and the step functions that it used.
    """
    folder = tmp_path_factory.mktemp("broken crops")
    for path in crops.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for row in (0, 1, *np.flatnonzero(IDENTITIES == 5)):
        (folder / f"{row:02d}.jpg").write_bytes(b"no picture")
    workdir, functions, make = tmp_path_factory.mktemp("run"), [], objectives.make_train_step

    def make_train_step(*arguments, **options):
        functions.append(make(*arguments, **options))
        return functions[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "make_train_step", make_train_step)
        config = get_config()
        config.pretrain.views.local_views = 1
        train.pretrain(config, table_of(folder), folder, workdir)
    return folder, workdir, functions


@pytest.mark.slow
def test_every_stage_is_compiled_once(finished):
    _, _, functions = finished
    assert [function._cache_size() for function in functions] == [1, 1]


@pytest.mark.slow
def test_broken_images_are_replaced_and_counted(finished):
    _, workdir, _ = finished
    log = read_metrics(workdir / "metrics.jsonl")
    assert sum(line["undecodable_images"] for line in log) == 8 * 3  # each once in each of the three epochs
    assert np.isfinite([line["loss"] for line in log]).all()


@pytest.mark.slow
def test_a_run_leaves_weights_that_fit_the_model_and_a_checkpoint(finished):
    _, workdir, _ = finished
    model = create_model("resnet_test")
    arrays, where = read_weights(workdir / "teacher.pth")
    assert list(arrays) == list(signature(model)) and "module.backbone." in where
    tree, meta = read_checkpoint(workdir / "checkpoints")
    assert meta["versions"]["jax"] == jax.__version__
    assert meta["model"] == "resnet_test" and int(tree["step"]) == 9
    cards = [read_json(workdir / f"{name}.pth.json") for name in ("teacher", "student")]
    assert [card["weights"] for card in cards] == ["teacher", "student"]
    assert all(card["data"] == meta["data"] and card["input_size"] == [32, 16] for card in cards)
    report = convert("resnet_test", workdir / "checkpoints", workdir / "converted.pth")
    assert "teacher of step 9" in report
    converted, _ = read_weights(workdir / "converted.pth")
    for key, value in arrays.items():
        np.testing.assert_array_equal(converted[key], value, err_msg=key)
    with pytest.raises(ValueError, match="the keys and shapes of resnet_test"):
        convert("resnet_ibn_test", workdir / "checkpoints", workdir / "wrong.pth")


@pytest.mark.slow
def test_other_data_are_refused(finished):
    folder, workdir, _ = finished
    table = table_of(folder).with_columns(identity=np.roll(IDENTITIES, 1))
    with pytest.raises(ValueError, match=r"samples differ.*allow_changed_data"):
        train.pretrain(get_config(), table, folder, workdir)


def test_memory_settings_reach_the_step(crops, tmp_path, one_device, monkeypatch):
    class Reached(Exception):
        pass

    def make_train_step(*_, remat, accumulate, **__):
        raise Reached(f"remat {remat}, accumulate {accumulate}")

    monkeypatch.setattr(objectives, "make_train_step", make_train_step)
    config = get_config()
    config.pretrain.update(remat=True, accumulate=2)
    with pytest.raises(Reached, match="remat True, accumulate 2"):
        train.pretrain(config, table_of(crops), crops, tmp_path)


@pytest.mark.slow
def test_devices_hold_one_state_when_a_run_begins_and_when_it_continues(crops, tmp_path, one_device):
    def begin():
        gc.collect()
        before = {id(array) for array in jax.live_arrays()}
        run = train._Run(tiny.get_config(), table_of(crops), crops, train.make_mesh())
        with Checkpoints(tmp_path) as checkpoints:
            state = run.start(checkpoints)
            gc.collect()
            held = sum(array.nbytes for array in jax.live_arrays() if id(array) not in before)
            assert held < 1.1 * sum(array.nbytes for array in jax.tree.leaves(vars(state)))
            checkpoints.save(3, vars(state) | {"step": jnp.asarray(3)}, run._meta)
        return int(state.step)

    assert [begin(), begin()] == [0, 3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "at least 1, got {'batch_size': 0}"),
        ({"epochs": 0, "log_every": -1}, "at least 1, got {'epochs': 0, 'log_every': -1}"),
        ({"checkpoint.keep_every": 3}, "keep_every 3 is no multiple of checkpoint.every_steps 2"),
        ({"compute_dtype": "bf16"}, "choose bfloat16 or float32"),
        ({"teacher.update_every": "never"}, "choose step or epoch"),
    ],
)
def test_numbers_that_no_run_can_have_are_refused_at_once(settings, message, crops, tmp_path):
    config = tiny.get_config()
    config.pretrain.update_from_flattened_dict(settings)
    with pytest.raises(ValueError, match=message):
        train.pretrain(config, table_of(crops), crops, tmp_path)


def test_a_batch_that_devices_cannot_share_is_refused_at_once(crops, tmp_path):
    config = get_config()
    config.pretrain.batch_size = 24  # 8 devices of 3 images can't hold pairs
    with pytest.raises(ValueError, match=r"8 device.*use 16 or 32"):
        train.pretrain(config, table_of(crops), crops, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_teacher_updated_once_an_epoch_stays_until_then(crops, tmp_path, one_device, monkeypatch):
    config, table = get_config(), table_of(crops)
    config.pretrain.teacher.update(update_every="epoch", momentum=0.5)
    stored = {}
    save = train.Checkpoints.save

    def remember(self, step, tree, meta):
        stored[step] = np.asarray(tree["teacher"]["backbone"]["conv1"]["kernel"])
        save(self, step, tree, meta)

    monkeypatch.setattr(train.Checkpoints, "save", remember)
    config.pretrain.checkpoint.every_steps = 1
    train.pretrain(config, table, crops, tmp_path)
    moved = [not np.array_equal(stored[step], stored[step + 1]) for step in range(1, 9)]
    assert moved == [False, True, False, False, True, False, False, True]  # epochs of three steps
