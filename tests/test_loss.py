"""The loss against values of the authors' code and Eq. 9 in float64, and against Eq. 9 written as loops."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.distillation.loss import identity_distillation_loss
from tests.refweights import uniform

CASES = json.loads((Path(__file__).parent / "reference/loss_cases.json").read_text())


def logits(case):
    """The inputs of a stored case, as tests/reference/README.md defines them."""
    batch, k, views, dim = (case[n] for n in ("batch", "images_per_identity", "views", "out_dim"))
    tag = f"loss/B{batch}/K{k}/V{views}/D{dim}"
    student = 6 * (2 * uniform(f"{tag}/student", (views * batch, dim)) - 1)
    teacher = 3 * (2 * uniform(f"{tag}/teacher", (2 * batch, dim)) - 1)
    center = 2 * uniform(f"{tag}/center", (1, dim)) - 1
    arrays = student.reshape(views, batch, dim), teacher.reshape(2, batch, dim), center
    return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


def eq9_by_loops(student, teacher, center, k, tau_s=0.1, tau_t=0.04):
    """Eq. 8-9 term by term in float64."""

    def log_softmax(x):
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    student, teacher, center = (np.asarray(x, np.float64) for x in (student, teacher, center))
    log_p, q = log_softmax(student / tau_s), np.exp(log_softmax((teacher - center) / tau_t))
    views, batch, _ = student.shape
    terms = []
    for first in range(0, batch, k):
        for i in range(first, first + k):
            for j in range(first, first + k):
                for a in range(2):
                    for v in range(views):
                        if (a, i) != (v, j):
                            terms.append(-(q[a, i] * log_p[v, j]).sum())
    return np.mean(terms)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"K{c['images_per_identity']}V{c['views']}")
def test_both_forms_match_the_stored_values(case):
    student, teacher, center = logits(case)
    k = case["images_per_identity"]
    paper, _ = identity_distillation_loss(student, teacher, center, images_per_identity=k)
    np.testing.assert_allclose(paper, case["eq9_mean"], rtol=1e-5)
    if "released_code" not in case:
        return
    released = jax.value_and_grad(
        lambda s: identity_distillation_loss(s, teacher, center, images_per_identity=k, form="released"), has_aux=True
    )
    (value, new_center), gradient = released(student)
    np.testing.assert_allclose(value, case["released_code"], rtol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(gradient), case["released_code_grad_norm"], rtol=1e-4)
    np.testing.assert_allclose(new_center.sum(), case["center_after_sum"], atol=1e-4)
    np.testing.assert_allclose(jnp.linalg.norm(new_center), case["center_after_norm"], rtol=1e-5)


@pytest.mark.parametrize(("views", "batch", "k"), [(2, 6, 1), (3, 6, 2), (5, 12, 3), (10, 8, 8)])
def test_paper_form_is_equation_9(views, batch, k):
    rng = np.random.default_rng(views)
    student, teacher = rng.normal(size=(views, batch, 7)), rng.normal(size=(2, batch, 7))
    center = rng.normal(size=(1, 7))
    loss, _ = identity_distillation_loss(
        jnp.asarray(student), jnp.asarray(teacher), jnp.asarray(center), images_per_identity=k
    )
    np.testing.assert_allclose(loss, eq9_by_loops(student, teacher, center, k), rtol=2e-5)


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
