"""Curriculum, schedules and identity sampler: exact step counts, stored schedule values, contents of batches."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cion_jax.distillation.sampler import IdentitySampler, identity_sizes
from cion_jax.distillation.schedules import cosine_schedule, make_curriculum

TRAJECTORY = json.loads((Path(__file__).parent / "reference/trajectory_vit_tiny.json").read_text())["vit_tiny"]


def curriculum(identities, batch_size=24, epochs=4, stage_epochs=(0, 1, 3), ks=(2, 4, 6)):
    return make_curriculum(
        identity_sizes(identities),
        batch_size=batch_size,
        epochs=epochs,
        stage_epochs=stage_epochs,
        images_per_identity=ks,
    )


def test_schedules_are_those_of_the_released_run():
    # Four epochs of three steps, warm-up over the first epoch.
    rate = cosine_schedule(1e-3, 1e-6, 12, warmup_steps=3)
    decay = cosine_schedule(0.04, 0.4, 12)
    momentum = cosine_schedule(0.996, 1.0, 12)
    for step, row in enumerate(TRAJECTORY):
        np.testing.assert_allclose(rate(step), row["lr"], rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(decay(step), row["wd"], rtol=1e-6)
        np.testing.assert_allclose(momentum(step), row["momentum"], rtol=1e-6)


def test_steps_of_every_stage_are_exact():
    identities = np.repeat(np.arange(40), np.arange(1, 41))
    plan = curriculum(identities)
    assert [(s.images_per_identity, s.first_epoch, s.epochs) for s in plan.stages] == [(2, 0, 1), (4, 1, 2), (6, 3, 1)]
    for stage in plan.stages:
        k = stage.images_per_identity
        groups = sum(-(-n // k) for n in range(1, 41))
        assert stage.steps_per_epoch == groups // (24 // k)
    assert plan.total_steps == sum(s.epochs * s.steps_per_epoch for s in plan.stages)
    steps = [plan.first_step(e) for e in range(5)]
    assert [plan.epoch(s) for s in steps[:4]] == [0, 1, 2, 3]
    assert [plan.epoch(s - 1) for s in steps[1:]] == [0, 1, 2, 3]
    assert steps[4] == plan.total_steps


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 15), min_size=12, max_size=40),
    seed=st.integers(0, 2**31),
    discarded=st.integers(0, 5),
)
def test_batches_hold_whole_groups_and_use_every_image(sizes, seed, discarded):
    identities = np.concatenate([np.repeat(np.arange(len(sizes)) * 3, sizes), np.full(discarded, -1)])
    identities = np.random.default_rng(seed).permutation(identities)
    plan = curriculum(identities, batch_size=12)
    sampler = IdentitySampler(identities, plan, batch_size=12, seed=seed)
    for stage in plan.stages:
        k = stage.images_per_identity
        drawn = np.concatenate([sampler[stage.first_step + s] for s in range(stage.steps_per_epoch)]).reshape(-1, k)
        owners = identities[drawn]
        assert (owners == owners[:, :1]).all() and (owners >= 0).all()
        for group, owner in zip(drawn, owners[:, 0]):
            size = (identities == owner).sum()
            assert len(set(group)) == min(k, size)
        left_out = sum(-(-n // k) for n in sizes) - len(drawn)
        assert left_out < 12 // k
        missing = set(np.flatnonzero(identities >= 0)) - set(drawn.ravel())
        assert len(missing) <= left_out * k
        # An image of an identity with at least K images is repeated at most once.
        counts = Counter(drawn.ravel().tolist())
        assert all(c <= 2 for row, c in counts.items() if (identities == identities[row]).sum() >= k)


def test_order_is_a_function_of_seed_and_step():
    identities = np.repeat(np.arange(30), 7)
    plan = curriculum(identities)
    batches = [IdentitySampler(identities, plan, batch_size=24, seed=3)[s] for s in range(plan.total_steps)]
    again = IdentitySampler(identities, plan, batch_size=24, seed=3)
    for step in reversed(range(plan.total_steps)):
        np.testing.assert_array_equal(again[step], batches[step])
    other = IdentitySampler(identities, plan, batch_size=24, seed=4)
    assert not np.array_equal(other[0], batches[0])
    assert not np.array_equal(batches[plan.first_step(1)], batches[plan.first_step(2)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 100, "ks": (2, 4, 6)}, "use 96 or 108"),
        ({"batch_size": 2400}, "fewer than one batch"),
        ({"stage_epochs": (0, 3, 1)}, "rising start epochs"),
        ({"stage_epochs": (1, 2, 3)}, "from 0"),
        ({"ks": (2, 4)}, "one K"),
    ],
)
def test_impossible_plans_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        curriculum(np.repeat(np.arange(30), 7), **options)


def test_stages_after_the_last_epoch_put_no_demand_on_the_batch():
    plan = curriculum(np.repeat(np.arange(30), 7), batch_size=20, epochs=2, stage_epochs=(0, 1, 60), ks=(2, 4, 6))
    assert [s.images_per_identity for s in plan.stages] == [2, 4]
