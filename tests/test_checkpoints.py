"""Checkpoints: retention, damaged checkpoints, full disks."""

import contextlib
import resource
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from jax.errors import JaxRuntimeError

from cion_jax.runtime.checkpoints import Checkpoints, read_checkpoint
from cion_jax.runtime.termination import Terminated, Termination, interrupt_once


def state(step, size=1000):
    return {"step": jnp.asarray(step), "values": jnp.arange(size) * step}


def save(folder, steps, **options):
    with Checkpoints(folder, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step), {"about": f"step {step}"})


def test_the_last_checkpoints_and_every_nth_are_kept(tmp_path):
    save(tmp_path, range(1, 12), keep=2, keep_every=4)
    assert sorted(int(p.name) for p in tmp_path.iterdir()) == [4, 8, 10, 11]


def test_a_step_that_is_saved_already_stays_as_it_is(tmp_path):
    save(tmp_path, [3])
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state(7), {"about": "another"})
        assert checkpoints.meta() == {"about": "step 3"}
        np.testing.assert_array_equal(checkpoints.restore(state(0))["values"], np.arange(1000) * 3)


def test_a_damaged_checkpoint_is_an_error_that_names_the_way_out(tmp_path):
    save(tmp_path, [1, 2])
    files = [p for p in (tmp_path / "2/state").rglob("*") if p.is_file() and p.stat().st_size > 100]
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=r"/2 cannot be read .*remove that folder to continue from step 1"):
            checkpoints.restore(state(0))
        assert checkpoints.latest_step == 2  # the damaged checkpoint was not removed


def test_settings_that_changed_the_state_are_named_as_a_reason(tmp_path):
    save(tmp_path, [1])
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="give another --workdir"):
        checkpoints.restore({"step": jnp.asarray(0), "weights": jnp.zeros(5)})


@contextlib.contextmanager
def no_file_larger_than(size):
    """Simulates a full disk for this process only, by limiting the file size."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_reading_leaves_what_is_being_saved_alone(tmp_path):
    save(tmp_path, [1])
    unfinished = tmp_path / "2.orbax-checkpoint-tmp"
    unfinished.mkdir()
    tree, meta = read_checkpoint(tmp_path)
    assert unfinished.exists() and int(tree["step"]) == 1 and meta == {"about": "step 1"}
    save(tmp_path, [3])
    assert not unfinished.exists()  # it is left over from a killed run


def test_running_out_of_memory_is_not_reported_as_a_damaged_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, [1])

    def restore(*_, **__):
        raise JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "restore", restore)
        with pytest.raises(JaxRuntimeError, match="out of memory"):
            checkpoints.restore(state(0))


def test_at_least_one_image_stays(tmp_path):
    with pytest.raises(ValueError, match="0 checkpoints to keep"):
        Checkpoints(tmp_path, keep=0)


def test_a_disk_without_room_is_an_error_and_what_was_saved_stays(tmp_path):
    save(tmp_path, [1])
    random = jnp.asarray(np.random.default_rng(0).normal(size=200_000))  # does not compress
    with (
        pytest.raises(OSError, match=r"cannot be written.*make room.*continues from step 1"),
        Checkpoints(tmp_path) as checkpoints,
        no_file_larger_than(50_000),
    ):
        checkpoints.save(2, {"step": jnp.asarray(2), "values": random}, {})
        checkpoints.save(3, {"step": jnp.asarray(3), "values": random}, {})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 1
        np.testing.assert_array_equal(checkpoints.restore(state(0))["values"], np.arange(1000))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_noted_and_the_old_handlers_come_back(number, code):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Termination() as termination:
        assert not termination.asked(1)
        signal.raise_signal(number)
        assert termination.asked(2)
        if number == signal.SIGINT:  # the next one ends the process
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        with pytest.raises(Terminated, match="step 2") as stopped:
            termination.stop("step 2 is saved")
    assert stopped.value.exit_code == code
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_ctrl_c_interrupts_once_and_then_ends_the_process():
    before = signal.getsignal(signal.SIGINT)
    try:
        interrupt_once()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
