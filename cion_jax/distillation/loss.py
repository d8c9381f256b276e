"""Identity-guided self-distillation loss (Eq. 8-9), in closed form: no loop over pairs of images, and no logits.

With s_v(j) = log-softmax of the student's view v of image j over temperature tau_s, and q_a(i) the teacher's
softmax of its global view a of image i (centered, over tau_t), a term of Eq. 9 is H = -q_a(i) . s_v(j). Because
q_a(i) sums to one, the terms over all pairs (i, j) of one identity of K images collapse to

    sum_ij H = K sum_j lse_v(j) - (sum_i q_a(i)) . (sum_j z_v(j)),      z = student logits / tau_s,

so the cost is the same for every K: one log-sum-exp per student row and sums over the identity. And because the
student's logits are products z_v(j) = W x_v(j) / tau_s of its prototypes W and bottlenecks x,

    q_a(i) . z_v(j) = (W^T q_a(i)) . x_v(j) / tau_s,

which needs of the teacher one average of the *student's* prototypes per row, a vector as short as a bottleneck.
`distillation_loss` computes that, in blocks of prototypes; training uses it. `identity_distillation_loss` is the
same from logits that are already there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax

from cion_jax.distillation.prototypes import Logits, compare

FORMS = ("paper", "released")


class Projection(NamedTuple):
    """Output of a head: unit vectors `[..., dim]` and prototypes `[prototypes, dim]`; their products are logits."""

    vectors: jax.Array
    prototypes: jax.Array

    def logits(self) -> jax.Array:
        """All of them, `[..., prototypes]`, float32. Training does not need them."""
        return jnp.einsum(
            "...d,pd->...p",
            self.vectors,
            self.prototypes.astype(self.vectors.dtype),
            preferred_element_type=jnp.float32,
        )


class TeacherStatistics(NamedTuple):
    """Means over the teacher's rows of a step, float32; over several parts of a batch they are averaged.

    `logits` `[1, prototypes]` moves the center. `targets` `[prototypes]` is the mean distribution and `entropy` `[]`
    the mean of the rows' entropies (nats): both tell of collapse.
    """

    logits: jax.Array
    targets: jax.Array
    entropy: jax.Array


def distillation_loss(
    student: Projection,
    teacher: Projection,
    center: jax.Array,
    *,
    images_per_identity: int,
    form: str = "paper",
    student_temperature: float = 0.1,
    teacher_temperature: jax.typing.ArrayLike = 0.04,
) -> tuple[jax.Array, TeacherStatistics]:
    """`identity_distillation_loss` of two heads' outputs, without their logits. What differs:

    Args:
      student: vectors `[views, batch, dim]`; views 0 and 1 are the global ones. Their dtype is that of the products.
      teacher: vectors `[2, batch, dim]`; no gradient flows into them or the teacher's prototypes.

    Returns:
      The scalar loss, float32, and what the center and the logs need of the teacher, both of this part of the batch.
    """
    views, batch, dim = student.vectors.shape
    prototypes = len(student.prototypes)
    shapes = (views, batch, prototypes), (*teacher.vectors.shape[:-1], len(teacher.prototypes)), center.shape
    _check(*shapes, images_per_identity, form)
    teacher, center = lax.stop_gradient((teacher, center[0]))
    found = compare(
        Logits(student.vectors.reshape(-1, dim), student.prototypes, jnp.zeros(prototypes), student_temperature),
        Logits(teacher.vectors.reshape(-1, dim), teacher.prototypes, center, teacher_temperature),
    )
    loss = _mean_term(
        found.averages.reshape(2, batch, dim),
        student.vectors.astype(jnp.float32) / student_temperature,
        found.log_partition.reshape(views, batch),
        images_per_identity,
        form,
    )
    mean_vector = teacher.vectors.astype(jnp.float32).mean((0, 1))
    logits = jnp.einsum("pd,d->p", teacher.prototypes, mean_vector)[None]
    return loss, lax.stop_gradient(TeacherStatistics(logits, found.mean, found.entropy))


def identity_distillation_loss(
    student: jax.Array,
    teacher: jax.Array,
    center: jax.Array,
    *,
    images_per_identity: int,
    form: str = "paper",
    student_temperature: float = 0.1,
    teacher_temperature: jax.typing.ArrayLike = 0.04,
    center_momentum: float = 0.9,
) -> tuple[jax.Array, jax.Array]:
    """Loss of one step and the center for the next, from raw logits.

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

    Returns:
      The scalar loss and the new center, both float32.

    Raises:
      ValueError: shapes that don't fit, an unknown form, a batch that K does not divide.
    """
    _check(student.shape, teacher.shape, center.shape, images_per_identity, form)
    student = student.astype(jnp.float32) / student_temperature
    teacher = lax.stop_gradient(teacher.astype(jnp.float32))
    targets = jax.nn.softmax((teacher - center) / teacher_temperature, axis=-1)
    lse = jax.nn.logsumexp(student, axis=-1)
    loss = _mean_term(targets, student, lse, images_per_identity, form)
    return loss, move_center(center, teacher.mean((0, 1))[None], center_momentum)


def move_center(center: jax.Array, mean_logits: jax.Array, momentum: float) -> jax.Array:
    """The center of the teacher's logits after a step whose mean was `mean_logits`, both `[1, prototypes]`."""
    return momentum * center + (1 - momentum) * mean_logits


def _mean_term(targets: jax.Array, student: jax.Array, lse: jax.Array, k: int, form: str) -> jax.Array:
    """The loss, from anything whose products targets . student are q_a(i) . z_v(j).

    `targets` is `[2, batch, n]`, `student` `[views, batch, n]`, `lse` `[views, batch]`.
    """
    same_image = lse[None] - jnp.einsum("abn,vbn->avb", targets, student)  # H(q_a(i), s_v(i))
    target_sums = rearrange(targets, "a (g k) n -> a g k n", k=k).sum(2)
    student_sums = rearrange(student, "v (g k) n -> v g k n", k=k).sum(2)
    lse_sums = rearrange(lse, "v (g k) -> v g k", k=k).sum(2)
    all_pairs = k * lse_sums[None] - jnp.einsum("agn,vgn->avg", target_sums, student_sums)
    return (_paper_mean if form == "paper" else _released_mean)(same_image, all_pairs, k)


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


def _check(student: tuple[int, ...], teacher: tuple[int, ...], center: tuple[int, ...], k: int, form: str) -> None:
    """Refuses shapes of logits (or of what their logits would be) that don't fit."""
    if form not in FORMS:
        raise ValueError(f"loss form {form!r} is unknown; choose one of {', '.join(FORMS)}")
    if len(student) != 3 or student[0] < 2:
        raise ValueError(f"student logits must be [views >= 2, batch, prototypes], got shape {student}")
    _, batch, prototypes = student
    if teacher != (2, batch, prototypes):
        raise ValueError(f"teacher logits must be {(2, batch, prototypes)} to fit the student's, got {teacher}")
    if center != (1, prototypes):
        raise ValueError(f"center must be {(1, prototypes)}, got {center}")
    if k < 1 or batch % k:
        raise ValueError(f"a batch of {batch} images can't be cut into identities of {k} images; change one of them")
