"""The loss against the authors' code, against Eq. 9 by explicit loops in float64, and in blocks of prototypes."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from cion_jax.distillation import identity_distillation_loss, prototypes, reference
from cion_jax.distillation.loss import FORMS, Projection, distillation_loss, move_center
from tests.refweights import uniform

CASES = json.loads((Path(__file__).parent / "reference/loss_cases.json").read_text())


def logits(case):
    """Inputs of a stored case, as tests/reference/README.md defines them."""
    batch, k, views, dim = (case[n] for n in ("batch", "images_per_identity", "views", "out_dim"))
    tag = f"loss/B{batch}/K{k}/V{views}/D{dim}"
    student = 6 * (2 * uniform(f"{tag}/student", (views * batch, dim)) - 1)
    teacher = 3 * (2 * uniform(f"{tag}/teacher", (2 * batch, dim)) - 1)
    center = 2 * uniform(f"{tag}/center", (1, dim)) - 1
    arrays = student.reshape(views, batch, dim), teacher.reshape(2, batch, dim), center
    return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


OPTIONS = ("images_per_identity", "form")
from_logits = jax.jit(identity_distillation_loss, static_argnames=OPTIONS)


@functools.partial(jax.jit, static_argnames=OPTIONS)
def from_vectors(student, teacher, center, **options):
    """The loss of `Projection`s whose vectors are the logits: the prototypes are the identity matrix."""
    axes = jnp.eye(student.shape[-1])
    loss, statistics = distillation_loss(Projection(student, axes), Projection(teacher, axes), center, **options)
    return loss, move_center(center, statistics.logits, 0.9)


@pytest.mark.parametrize("loss_of", [from_logits, from_vectors])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"K{c['images_per_identity']}V{c['views']}")
def test_both_forms_match_the_stored_values(case, loss_of, monkeypatch):
    student, teacher, center = logits(case)
    monkeypatch.setattr(prototypes, "_block_logits", lambda: 256 * (student.shape[0] + 2) * student.shape[1])
    k = case["images_per_identity"]
    paper, _ = loss_of(student, teacher, center, images_per_identity=k)
    np.testing.assert_allclose(paper, case["eq9_mean"], rtol=1e-5)
    if "released_code" not in case:
        return
    released = jax.value_and_grad(
        lambda s: loss_of(s, teacher, center, images_per_identity=k, form="released"), has_aux=True
    )
    (value, new_center), gradient = released(student)
    np.testing.assert_allclose(value, case["released_code"], rtol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(gradient), case["released_code_grad_norm"], rtol=1e-4)
    np.testing.assert_allclose(new_center.sum(), case["center_after_sum"], atol=1e-4)
    np.testing.assert_allclose(jnp.linalg.norm(new_center), case["center_after_norm"], rtol=1e-5)


REFERENCES = {"paper": reference.equation_9, "released": reference.released}


@pytest.mark.parametrize("loss_of", [from_logits, from_vectors])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("views", "batch", "k"), [(2, 6, 1), (3, 6, 2), (5, 12, 3), (10, 8, 8)])
def test_both_forms_equal_the_explicit_loops(views, batch, k, form, loss_of):
    rng = np.random.default_rng(views)
    student, teacher = rng.normal(size=(views, batch, 7)), rng.normal(size=(2, batch, 7))
    center = rng.normal(size=(1, 7))
    arrays = (jnp.asarray(x, jnp.float32) for x in (student, teacher, center))
    loss, _ = loss_of(*arrays, images_per_identity=k, form=form)
    np.testing.assert_allclose(loss, REFERENCES[form](student, teacher, center, k), rtol=2e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"K{c['images_per_identity']}")
def test_the_reference_gives_the_stored_values(case):
    arrays, k = [np.asarray(x, np.float64) for x in logits(case)], case["images_per_identity"]
    np.testing.assert_allclose(reference.equation_9(*arrays, k), case["eq9_mean"], rtol=1e-6)
    if "released_code" in case:
        np.testing.assert_allclose(reference.released(*arrays, k), case["released_code"], rtol=1e-5)


def test_the_reference_of_logits_far_apart_is_finite_and_pytorchs():
    rng = np.random.default_rng(0)
    student, teacher = 200 * rng.normal(size=(2, 1, 9)), rng.normal(size=(2, 1, 9))
    assert reference.distribution(student, 0.1).min() == 0  # whose logarithm is -inf
    got = reference.equation_9(student, teacher, np.zeros((1, 9)), 1)
    log_p = torch.log_softmax(torch.tensor(student) / 0.1, dim=-1)
    targets = torch.softmax(torch.tensor(teacher) / 0.04, dim=-1)
    expected = -(targets * log_p.flip(0)).sum(-1).mean()  # with two views, each is compared with the other one
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_one_image_per_identity_is_dino_in_both_forms():
    case = CASES[0]
    student, teacher, center = logits(case)
    losses = [
        identity_distillation_loss(student, teacher, center, images_per_identity=1, form=form)[0]
        for form in ("paper", "released")
    ]
    np.testing.assert_allclose(losses, case["eq9_mean"], rtol=1e-5)


def test_no_gradient_reaches_the_teacher():
    student, teacher, center = logits(CASES[1])
    gradient = jax.grad(lambda t: identity_distillation_loss(student, t, center, images_per_identity=2)[0])(teacher)
    assert not gradient.any()


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((4, 6, 5), (2, 6, 5), (1, 5)), {"images_per_identity": 4}, "6 images .* of 4"),
        (((1, 6, 5), (2, 6, 5), (1, 5)), {"images_per_identity": 2}, "views >= 2"),
        (((4, 6, 5), (2, 6, 4), (1, 5)), {"images_per_identity": 2}, r"teacher logits must be \(2, 6, 5\)"),
        (((4, 6, 5), (2, 6, 5), (5,)), {"images_per_identity": 2}, "center"),
        (((4, 6, 5), (2, 6, 5), (1, 5)), {"images_per_identity": 2, "form": "papr"}, "paper, released"),
    ],
)
def test_wrong_input_is_named(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        identity_distillation_loss(*(jnp.zeros(s) for s in shapes), **options)


def projections(views, batch, count, dim=24, dtype=jnp.float32):
    """Random unit vectors and prototypes of a student and a teacher, and a center."""
    rng = np.random.default_rng(count)

    def unit(*shape):
        x = rng.normal(size=shape)
        return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)

    student, teacher = (Projection(unit(n, batch, dim).astype(dtype), unit(count, dim)) for n in (views, 2))
    return student, teacher, jnp.asarray(0.1 * rng.normal(size=(1, count)), jnp.float32)


def plain_loss(student, teacher, center, **options):
    return identity_distillation_loss(student.logits(), teacher.logits(), center, **options)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("views", "k", "count"), [(2, 1, 300), (5, 4, 1024), (10, 2, 1000)])
def test_blocks_give_the_loss_and_gradients_of_whole_logits(views, k, count, form, monkeypatch):
    """Blocks of 128 to 256 prototypes; some do not divide the number of prototypes."""
    arguments = projections(views, 8, count)
    monkeypatch.setattr(prototypes, "_block_logits", lambda: 256 * (views + 2) * 8)
    (loss, statistics), gradient, (whole, center), expected = (
        result
        for function in (distillation_loss, plain_loss)
        for result in jax.jit(
            jax.value_and_grad(functools.partial(function, images_per_identity=k, form=form), has_aux=True)
        )(*arguments)
    )
    np.testing.assert_allclose(loss, whole, rtol=1e-6)
    for ours, theirs in zip(gradient, expected):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
    np.testing.assert_allclose(move_center(arguments[2], statistics.logits, 0.9), center, atol=1e-6)


def test_statistics_of_the_teacher_are_those_of_its_softmax(monkeypatch):
    _, teacher, center = arguments = projections(3, 8, 700)
    monkeypatch.setattr(prototypes, "_block_logits", lambda: 256 * 5 * 8)
    loss_of = jax.jit(functools.partial(distillation_loss, images_per_identity=2, teacher_temperature=0.07))
    _, statistics = loss_of(*arguments)
    vectors, weights = (np.asarray(x, np.float64) for x in teacher)
    q = np.exp((vectors @ weights.T - np.asarray(center)) / 0.07)
    q /= q.sum(-1, keepdims=True)
    np.testing.assert_allclose(statistics.targets, q.mean((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(statistics.entropy, -(q * np.log(q)).sum(-1).mean(), rtol=1e-5)


def test_no_gradient_reaches_the_teacher_in_blocks():
    student, teacher, center = projections(3, 4, 300)
    loss_of = lambda t, c: distillation_loss(student, t, c, images_per_identity=2)[0]  # noqa: E731
    gradient = jax.jit(jax.grad(loss_of, argnums=(0, 1)))(teacher, center)
    assert not any(np.any(x) for x in jax.tree.leaves(gradient))


def test_low_precision_vectors_still_give_a_float32_loss():
    loss_of = jax.jit(jax.value_and_grad(lambda s, *a: distillation_loss(s, *a, images_per_identity=2)[0]))
    exact, low = (loss_of(*projections(4, 8, 512, dtype=dtype)) for dtype in (jnp.float32, jnp.bfloat16))
    assert low[0].dtype == low[1].prototypes.dtype == jnp.float32 and low[1].vectors.dtype == jnp.bfloat16
    np.testing.assert_allclose(low[0], exact[0], rtol=2e-3)  # the vectors themselves are rounded to 8 bits


def compiled(batch, k, count=65_536, views=10, dim=256):
    """The loss and its gradients, compiled for the sizes of the released recipe."""
    described = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    student, teacher = (Projection(described(n, batch, dim), described(count, dim)) for n in (views, 2))
    gradient = jax.value_and_grad(lambda s, t, c: distillation_loss(s, t, c, images_per_identity=k), has_aux=True)
    return jax.jit(gradient).lower(student, teacher, described(1, count)).compile()


def test_memory_does_not_grow_with_the_logits(optimised):
    half, whole = (compiled(batch, 8).memory_analysis().temp_size_in_bytes for batch in (64, 128))
    logits_added = (10 + 2) * 64 * 65_536 * 4
    assert whole - half < logits_added / 10
    assert whole < logits_added  # not even half of the logits of the smaller batch exist beside its gradient


def test_the_loss_costs_the_same_for_every_number_of_images():
    # XLA counts the body of a loop once: 4,096 prototypes are one block, without a loop, and all is counted.
    two, eight = (compiled(64, k, count=4096).cost_analysis()["flops"] for k in (2, 8))
    products = 2 * 64 * 4096 * 256 * (3 * 10 + 3 * 2)  # logits, and their gradients to vectors and prototypes
    assert products < min(two, eight) < max(two, eight) < 1.05 * min(two, eight) < 1.25 * products
