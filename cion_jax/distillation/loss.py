"""Identity-guided self-distillation loss (Eq. 8-9), in closed form: no loop over pairs of images.

With s_v(j) = log-softmax of the student's view v of image j over temperature tau_s, and q_a(i) the teacher's
softmax of its global view a of image i (centered, over tau_t), a term of Eq. 9 is H = -q_a(i) . s_v(j). Because
q_a(i) sums to one, the terms over all pairs (i, j) of one identity of K images collapse to

    sum_ij H = K sum_j lse_v(j) - (sum_i q_a(i)) . (sum_j z_v(j)),      z = student logits / tau_s,

so the cost is the same for every K: one log-sum-exp per student row and sums over the identity.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax

FORMS = ("paper", "released")


def identity_distillation_loss(
    student: jax.Array,
    teacher: jax.Array,
    center: jax.Array,
    *,
    images_per_identity: int,
    form: str = "paper",
    student_temperature: float = 0.1,
    teacher_temperature: float | jax.Array = 0.04,
    center_momentum: float = 0.9,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Loss of one step and the center for the next.

    `form="paper"` is Eq. 9, averaged over its terms: every ordered pair of images of an identity, both teacher
    views, every student view except the identical view of the identical image. `form="released"` is what the
    authors' code computes: equal view indices are left out for all pairs, and for each (teacher view, student
    view) the mean over same-image terms and the K(K-1) means over cross-image terms count alike. Both are DINO
    (Caron et al., 2021) when `images_per_identity` is 1.

    Args:
      student: raw logits `[views, batch, prototypes]`; views 0 and 1 are the global ones.
      teacher: raw logits `[2, batch, prototypes]`; no gradient flows into them.
      center: `[1, prototypes]`, running mean of the teacher's logits.
      images_per_identity: K; images of one identity are adjacent in the batch.
      form: "paper" or "released".
      student_temperature: tau_s of Eq. 8.
      teacher_temperature: tau_t.
      center_momentum: the center moves to `m * center + (1 - m) * batch mean`.
      axis_name: mesh axis over which the batch is split, if it is: loss and center are means over all of it.

    Returns:
      The scalar loss and the new center, both float32.

    Raises:
      ValueError: shapes that don't fit, an unknown form, a batch that K does not divide.
    """
    _check(student, teacher, center, images_per_identity, form)
    student = student.astype(jnp.float32) / student_temperature
    teacher = lax.stop_gradient(teacher.astype(jnp.float32))
    targets = jax.nn.softmax((teacher - center) / teacher_temperature, axis=-1)

    lse = jax.nn.logsumexp(student, axis=-1)
    same_image = lse[None] - jnp.einsum("abd,vbd->avb", targets, student)  # H(q_a(i), s_v(i))
    groups = dict(k=images_per_identity)
    target_sums = rearrange(targets, "a (g k) d -> a g k d", **groups).sum(2)
    logit_sums = rearrange(student, "v (g k) d -> v g k d", **groups).sum(2)
    lse_sums = rearrange(lse, "v (g k) -> v g k", **groups).sum(2)
    all_pairs = images_per_identity * lse_sums[None] - jnp.einsum("agd,vgd->avg", target_sums, logit_sums)

    reduce = _paper_mean if form == "paper" else _released_mean
    loss = reduce(same_image, all_pairs, images_per_identity)
    batch_center = teacher.mean((0, 1))[None]
    if axis_name is not None:
        loss, batch_center = lax.pmean((loss, batch_center), axis_name)
    return loss, center_momentum * center + (1 - center_momentum) * batch_center


def _paper_mean(same_image: jax.Array, all_pairs: jax.Array, k: int) -> jax.Array:
    """Eq. 9 over its number of terms; `same_image` is [2, views, batch], `all_pairs` [2, views, identities]."""
    _, views, batch = same_image.shape
    identical = same_image[0, 0].sum() + same_image[1, 1].sum()
    return (all_pairs.sum() - identical) / (2 * batch * (views * k - 1))


def _released_mean(same_image: jax.Array, all_pairs: jax.Array, k: int) -> jax.Array:
    _, views, batch = same_image.shape
    cross_image = all_pairs.sum(-1) - same_image.sum(-1)
    per_views = (same_image.sum(-1) / batch + cross_image * k / batch) / (k * (k - 1) + 1)
    different = 1 - jnp.eye(2, views)
    return (per_views * different).sum() / different.sum()


def _check(student: jax.Array, teacher: jax.Array, center: jax.Array, k: int, form: str) -> None:
    if form not in FORMS:
        raise ValueError(f"loss form {form!r} is unknown; choose one of {', '.join(FORMS)}")
    if student.ndim != 3 or student.shape[0] < 2:
        raise ValueError(f"student logits must be [views >= 2, batch, prototypes], got shape {student.shape}")
    _, batch, prototypes = student.shape
    if teacher.shape != (2, batch, prototypes):
        raise ValueError(f"teacher logits must be {(2, batch, prototypes)} to fit the student's, got {teacher.shape}")
    if center.shape != (1, prototypes):
        raise ValueError(f"center must be {(1, prototypes)}, got {center.shape}")
    if k < 1 or batch % k:
        raise ValueError(f"a batch of {batch} images can't be cut into identities of {k} images; change one of them")
