"""Training in two processes of four devices: one that dies ends the other, and one process of eight can resume."""

import signal
import time

import numpy as np
import pytest

from cion_jax.runtime.checkpoints import read_checkpoint
from cion_jax.runtime.metrics import read_metrics
from tests import processes, tiny

pytestmark = pytest.mark.slow
STEPS = 12
# One stage, so that only one program is compiled; restarts load it from the cache.
SETTINGS = {
    "epochs": 4,
    "curriculum__stage_epochs": "(0,)",
    "curriculum__images_per_identity": "(2,)",
    "optimizer__freeze_last_layer_epochs": 0.0,
}
PATIENT, IMPATIENT = ("-m", "cion_jax.pretrain"), ("-m", "tests.processes", "cion_jax.pretrain")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    tiny.write_crops(folder / "crops")
    return folder


def command(folder, name, module=PATIENT):
    cache = f"--compile_cache={folder / 'cache'}"
    return [*tiny.arguments(folder / "crops", folder / name, module=module, **SETTINGS), cache]


def result(folder, name):
    """Returns the losses by step and the last checkpoint."""
    losses = [line["loss"] for line in read_metrics(folder / name / "identity/metrics.jsonl")]
    return np.asarray(losses), read_checkpoint(folder / name / "identity/checkpoints")[0]


def flat(tree, prefix=""):
    if isinstance(tree, dict):
        return {k: v for name, part in tree.items() for k, v in flat(part, f"{prefix}/{name}").items()}
    if isinstance(tree, list | tuple):
        return flat(dict(enumerate(tree)), prefix)
    return {} if tree is None else {prefix: np.asarray(tree)}


@pytest.fixture(scope="module")
def together(folder):
    """Result of an uninterrupted run in two processes of four devices."""
    logs = processes.run(2, folder / "logs", *command(folder, "together"), devices=4)
    assert "Pre-training" in logs[0] and "Pre-training" not in logs[1]
    return result(folder, "together")


def same_to_rounding(run, other):
    """Compares two runs: a different summation order causes rounding errors, which every AdamW step amplifies."""
    (losses, state), (other_losses, other_state) = run, other
    assert len(losses) == len(other_losses) == STEPS
    np.testing.assert_allclose(losses[:3], other_losses[:3], rtol=1e-5)
    np.testing.assert_allclose(losses, other_losses, rtol=2e-4)
    values, others = flat(state), flat(other_state)
    assert values.keys() == others.keys()
    for name in values:
        if name.startswith(("/teacher", "/student", "/center")):
            np.testing.assert_allclose(values[name], others[name], atol=2e-4, err_msg=name)


def wait_for_lines(path, count, started):
    while len(read_metrics(path)) < count:
        assert all(process.poll() is None for process in started)
        time.sleep(0.02)


def test_a_process_that_is_killed_ends_the_other_and_a_restart_continues(folder, together):
    started = processes.start(2, folder / "logs killed", *command(folder, "killed", IMPATIENT), devices=4)
    wait_for_lines(folder / "killed/identity/metrics.jsonl", 4, started)
    started[1].kill()
    killed_at = time.monotonic()
    codes, logs = processes.finish(started, folder / "logs killed", timeout=300)
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, None)
    assert time.monotonic() - killed_at < 40
    assert "another one died" in logs[0] or "another task died" in logs[0]  # ours, or JAX's
    logs = processes.run(2, folder / "logs restarted", *command(folder, "killed"), devices=4)
    assert "Continuing from step" in logs[0]
    losses, state = result(folder, "killed")
    np.testing.assert_array_equal(losses, together[0])
    expected = flat(together[1])
    for name, value in flat(state).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_sigterm_to_one_process_saves_and_stops_all_and_other_devices_continue(folder, together):
    started = processes.start(2, folder / "logs asked", *command(folder, "asked"), devices=4)
    wait_for_lines(folder / "asked/identity/metrics.jsonl", 2, started)
    started[1].terminate()
    codes, logs = processes.finish(started, folder / "logs asked", timeout=300)
    assert codes == [143, 143], logs
    losses, state = result(folder, "asked")
    assert f"Stopped by SIGTERM: step {int(state['step'])} of {STEPS} is saved" in logs[0]
    np.testing.assert_array_equal(losses, together[0][: len(losses)])
    processes.run(1, folder / "logs continued", *command(folder, "asked"), devices=8)
    same_to_rounding(result(folder, "asked"), together)
