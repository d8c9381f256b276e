"""Losses, schedules and parameter groups of fine-tuning against the released TransReID (tests/reference/finetune)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.finetuning.losses import center_loss, identity_loss, over_heads, triplet_loss
from cion_jax.finetuning.optimizer import epoch_rates
from cion_jax.runtime.mesh import make_mesh
from tests.refweights import uniform

FOLDER = Path(__file__).parent / "reference" / "finetune"
CASES = json.loads((FOLDER / "transreid_losses.json").read_text())
SCHEDULES = json.loads((FOLDER / "transreid_schedule.json").read_text())["schedules"]
UNTIED, TIED = ([case for case in CASES if case["ties"] == ties] for ties in (False, True))
TRIPLETS = {
    "triplet_soft": {},
    "triplet_soft_norm": {"normalise": True},
    "triplet_margin0.3": {"margin": 0.3},
    "triplet_margin0.3_norm": {"margin": 0.3, "normalise": True},
}


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def sym(name, shape, scale=1.0):
    return jnp.asarray(scale * (2 * uniform(name, shape) - 1))


def features_of(case):
    x = np.asarray(sym(f"{case['tag']}/feat", (case["batch"], case["dim"]), 1.5))
    if case["ties"]:
        x = np.round(2 * x) / 2 if case["dim"] <= 12 else (x > 0.75).astype(float) - (x < -0.75)
        x[1] = x[0]
    return jnp.asarray(x)


def logits_of(case, suffix=""):
    return sym(f"{case['tag']}/logits{suffix}", (case["batch"], case["classes"]), 4)


def assert_measured(expected, function, *arguments):
    """Value, and norm and sum of absolutes of the gradient for each argument."""
    value, gradients = jax.jit(jax.value_and_grad(function, argnums=tuple(range(len(arguments)))))(*arguments)
    np.testing.assert_allclose(value, expected["loss"], rtol=1e-9)
    np.testing.assert_allclose([jnp.linalg.norm(g) for g in gradients], expected["grad_norm"], rtol=1e-6)
    np.testing.assert_allclose([jnp.abs(g).sum() for g in gradients], expected["grad_sum_abs"], rtol=1e-6)


@pytest.mark.parametrize("case", UNTIED, ids=lambda case: case["tag"])
def test_losses_and_gradients_are_the_released_ones(case):
    labels, x, logits = jnp.asarray(case["labels"]), features_of(case), logits_of(case)
    assert_measured(case["ce"], lambda z: identity_loss(z, labels), logits)
    for name in ("ce_smooth", "ce_smooth_nll"):
        assert_measured(case[name], lambda z: identity_loss(z, labels, 0.1), logits)
    for name, settings in TRIPLETS.items():
        assert_measured(case[name], lambda x, settings=settings: triplet_loss(x, labels, **settings), x)
    for smoothing, switch in ((0.0, "off"), (0.1, "on")):
        for margin, kind in ((None, "soft"), (0.3, "margin")):

            def total(z, x, smoothing=smoothing, margin=margin):
                return identity_loss(z, labels, smoothing) + triplet_loss(x, labels, margin)

            assert_measured(case[f"total_ls_{switch}_{kind}"], total, logits, x)
    centers = sym(f"{case['tag']}/centers", (case["classes"], case["dim"]))
    expected = case["center_off_by_default"]
    value, gradient = jax.value_and_grad(center_loss)(x, labels, centers)
    np.testing.assert_allclose(value, expected["loss"], rtol=1e-9)
    np.testing.assert_allclose(jnp.linalg.norm(gradient), expected["grad_norm"][0], rtol=1e-6)


@pytest.mark.parametrize("case", UNTIED, ids=lambda case: case["tag"])
def test_several_heads_count_as_in_the_released_code(case):
    labels = jnp.asarray(case["labels"])
    logits = [logits_of(case, head) for head in range(3)]
    features = [sym(f"{case['tag']}/feat{head}", (case["batch"], case["dim"]), 1.5) for head in range(3)]

    def total(*heads):
        return over_heads(identity_loss, heads[:3], labels) + over_heads(triplet_loss, heads[3:], labels)

    np.testing.assert_allclose(total(*logits, *features), case["total_list_of_3_heads"]["loss"], rtol=1e-9)
    assert over_heads(identity_loss, logits[:1], labels) == identity_loss(logits[0], labels)


@pytest.mark.parametrize("case", TIED, ids=lambda case: case["tag"])
@pytest.mark.parametrize("name", TRIPLETS)
def test_ties_and_equal_images_give_the_released_losses(case, name):
    labels, x = jnp.asarray(case["labels"]), features_of(case)
    value, gradient = jax.value_and_grad(triplet_loss)(x, labels, **TRIPLETS[name])
    np.testing.assert_allclose(value, case[name]["loss"], rtol=1e-9)
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("devices", [2, 4])
def test_triplets_are_mined_in_the_global_batch(devices):
    case = UNTIED[3]
    labels, x = jnp.asarray(case["labels"]), features_of(case)
    split, whole = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()

    def mean_of_parts(x, labels):
        loss = triplet_loss(x, labels, axis_name="data")
        return jax.lax.pmean(loss, "data")

    mesh = make_mesh(jax.devices()[:devices])
    sharded = jax.shard_map(mean_of_parts, mesh=mesh, in_specs=(split, split), out_specs=whole, check_vma=False)
    np.testing.assert_allclose(sharded(x, labels), case["triplet_soft"]["loss"], rtol=1e-9)


@pytest.mark.parametrize("case", SCHEDULES, ids=lambda case: f"{case['config']}, {case['base_lr']}")
def test_learning_rates_are_the_released_ones(case):
    base, count = case["base_lr"], case["epochs"]
    for factor, used in ((1, "lr_used_weights"), (case.get("bias_lr_factor", 2), "lr_used_biases")):
        if used in case:
            rates = epoch_rates(factor * base, base, epochs=count, warmup_epochs=case["warmup"])
            np.testing.assert_allclose(rates[:-1], case[used], rtol=1e-12)
            if after := case.get("lr_after_last_epoch"):
                np.testing.assert_allclose(rates[-1], after[0], rtol=1e-12)


def test_a_warm_up_longer_than_training_is_refused():
    with pytest.raises(ValueError, match="warm-up of 5 epochs must lie within the 3 epochs"):
        epoch_rates(1.0, 1.0, epochs=3, warmup_epochs=5)
