"""Identity-guided self-distillation loss (Eq. 8-9) in closed form: no loop over pairs of images, and no logits.

Axes, here and in einsum subscripts: a = teacher view (2 global views), v = student view, b = image of the batch,
g = identity, k = image of an identity (K of each), i and j = the two images of a pair.

With s_v(j) the log-softmax of the student's view v of image j (temperature tau_s), and q_a(i) the softmax of the
teacher's global view a of image i (centered, temperature tau_t), a term of Eq. 9 is H = -q_a(i) . s_v(j). Because
q_a(i) sums to one, the sum over all pairs (i, j) of one identity of K images is

    sum_ij H = K sum_j lse_v(j) - (sum_i q_a(i)) . (sum_j z_v(j)),      z = student logits / tau_s,

so the cost is the same for every K: one log-sum-exp per student row, and sums over the identity. Because the
student's logits are products z_v(j) = W x_v(j) / tau_s of its prototypes W and unit vectors x,

    q_a(i) . z_v(j) = (W^T q_a(i)) . x_v(j) / tau_s,

so each teacher row is needed only as a weighted average of the *student's* prototypes, W^T q_a(i), `[dim]`.
`distillation_loss` computes that in blocks of prototypes and is used in training. `identity_distillation_loss`
computes the same loss from given logits. `reference.py` has both forms as explicit loops.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax

from cion_jax.distillation.prototypes import Logits, compare

FORMS = ("paper", "released")


class Projection(NamedTuple):
    """Output of a head: unit vectors `[..., dim]` and prototypes `[prototypes, dim]`; logits are their products."""

    vectors: jax.Array
    prototypes: jax.Array

    def logits(self) -> jax.Array:
        """The full logits, `[..., prototypes]`, float32. Training never computes them."""
        return jnp.einsum(
            "...d,pd->...p",
            self.vectors,
            self.prototypes.astype(self.vectors.dtype),
            preferred_element_type=jnp.float32,
        )


class TeacherStatistics(NamedTuple):
    """Means over the teacher's rows, float32; those of equal parts of a batch average to those of the batch.

    `logits` `[1, prototypes]` updates the center. `targets` `[prototypes]` is the mean distribution and `entropy`
    `[]` the mean of the rows' entropies in nats; both reveal collapse.
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
    """The loss of `identity_distillation_loss` from the outputs of two heads, without computing their logits.

    It is Eq. 9 averaged over its terms; with Projection.logits() for logits it equals `reference.equation_9`
    (`form="paper"`) and `reference.released` (`form="released"`):

        mean over i, j, a, v of H(P_T(x_i^a), P_S(x_j^v)),      (a, i) != (v, j)

    with i, j the images of one identity, a = 0, 1 the teacher's views and v = 0, ..., views - 1 the student's.

    The other arguments are those of `identity_distillation_loss`.

    Args:
        student: vectors `[views, batch, dim]`; views 0 and 1 are the global ones. Matrix products take their inputs
            in the dtype of the vectors.
        teacher: vectors `[2, batch, dim]`; no gradient flows into them or the teacher's prototypes.

    Returns:
        The scalar loss, float32, and the teacher's statistics for the center and the metrics.
    """
    views, batch, dim = student.vectors.shape
    prototypes = len(student.prototypes)
    shapes = (views, batch, prototypes), (*teacher.vectors.shape[:-1], len(teacher.prototypes)), center.shape
    _check(*shapes, images_per_identity, form)
    teacher, center = lax.stop_gradient((teacher, center[0]))
    comparison = compare(
        Logits(student.vectors.reshape(-1, dim), student.prototypes, jnp.zeros(prototypes), student_temperature),
        Logits(teacher.vectors.reshape(-1, dim), teacher.prototypes, center, teacher_temperature),
    )
    loss = _mean_term(
        comparison.averages.reshape(2, batch, dim),
        student.vectors.astype(jnp.float32) / student_temperature,
        comparison.log_partition.reshape(views, batch),
        images_per_identity,
        form,
    )
    mean_vector = teacher.vectors.astype(jnp.float32).mean((0, 1))
    logits = _product("pd,d->p", teacher.prototypes, mean_vector)[None]
    return loss, lax.stop_gradient(TeacherStatistics(logits, comparison.mean, comparison.entropy))


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

    `form="paper"` is Eq. 9 averaged over its terms, and equals `reference.equation_9`:

        mean over i, j, a, v of H(P_T(x_i^a), P_S(x_j^v)),      (a, i) != (v, j)

    i, j: all ordered pairs of images of one identity; a = 0, 1: teacher views; v = 0, ..., views - 1: student views.

    `form="released"` is the loss of the authors' code, and equals `reference.released`: equal view indices are left
    out for all pairs, and for each (teacher view, student view) the mean over same-image terms and the K(K-1) means
    over cross-image terms have equal weight. Both forms are DINO (Caron et al., 2021) if `images_per_identity` is 1.

    Args:
        student: raw logits `[views, batch, prototypes]`; views 0 and 1 are the global ones.
        teacher: raw logits `[2, batch, prototypes]`; no gradient flows into them.
        center: `[1, prototypes]`, running mean of the teacher's logits.
        images_per_identity: K; images of one identity are adjacent in the batch.
        form: "paper" or "released".
        student_temperature: tau_s of Eq. 8.
        teacher_temperature: tau_t.
        center_momentum: m of the update `m * center + (1 - m) * batch mean`.

    Returns:
        The scalar loss and the new center, both float32.

    Raises:
        ValueError: mismatched shapes, an unknown form, or a batch that K does not divide.
    """
    _check(student.shape, teacher.shape, center.shape, images_per_identity, form)
    student = student.astype(jnp.float32) / student_temperature
    teacher = lax.stop_gradient(teacher.astype(jnp.float32))
    targets = jax.nn.softmax((teacher - center) / teacher_temperature, axis=-1)
    lse = jax.nn.logsumexp(student, axis=-1)
    loss = _mean_term(targets, student, lse, images_per_identity, form)
    return loss, move_center(center, teacher.mean((0, 1))[None], center_momentum)


def move_center(center: jax.Array, mean_logits: jax.Array, momentum: float) -> jax.Array:
    """Exponential moving average of the teacher's mean logits after one step, all `[1, prototypes]`."""
    return momentum * center + (1 - momentum) * mean_logits


def _mean_term(targets: jax.Array, student: jax.Array, lse: jax.Array, k: int, form: str) -> jax.Array:
    """The loss from factors whose inner products targets . student are q_a(i) . z_v(j).

    The factors are (q, z) with n = prototypes, or (W^T q, x / tau_s) with n = dim.

    Args:
        targets: `[2, batch, n]`.
        student: `[views, batch, n]`.
        lse: log-sum-exp of the student's logits, `[views, batch]`.
        k: images per identity.
        form: "paper" or "released".
    """
    same_image = lse[None] - _product("abn,vbn->avb", targets, student)  # H(q_a(i), s_v(i))
    target_sums = rearrange(targets, "a (g k) n -> a g k n", k=k).sum(2)
    student_sums = rearrange(student, "v (g k) n -> v g k n", k=k).sum(2)
    lse_sums = rearrange(lse, "v (g k) -> v g k", k=k).sum(2)
    all_pairs = k * lse_sums[None] - _product("agn,vgn->avg", target_sums, student_sums)
    return (_paper_mean if form == "paper" else _released_mean)(same_image, all_pairs, k)


def _product(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """`jnp.einsum` in float32, which accelerators cut to fewer bits by default; these products are small."""
    return jnp.einsum(subscripts, a, b, precision=lax.Precision.HIGHEST)


def _paper_mean(same_image: jax.Array, all_pairs: jax.Array, k: int) -> jax.Array:
    """Eq. 9 divided by its number of terms.

    Args:
        same_image: H of each image with itself, `[2, views, batch]`.
        all_pairs: sums of H over the ordered pairs of each identity, `[2, views, identities]`.
        k: images per identity.
    """
    _, views, batch = same_image.shape
    identical = same_image[0, 0].sum() + same_image[1, 1].sum()
    return (all_pairs.sum() - identical) / (2 * batch * (views * k - 1))


def _released_mean(same_image: jax.Array, all_pairs: jax.Array, k: int) -> jax.Array:
    """The average of the authors' code; arguments as for `_paper_mean`."""
    _, views, batch = same_image.shape
    cross_image = all_pairs.sum(-1) - same_image.sum(-1)
    per_views = (same_image.sum(-1) / batch + cross_image * k / batch) / (k * (k - 1) + 1)
    different = 1 - jnp.eye(2, views)
    return (per_views * different).sum() / different.sum()


def _check(student: tuple[int, ...], teacher: tuple[int, ...], center: tuple[int, ...], k: int, form: str) -> None:
    """Raises ValueError for mismatched shapes; `student` and `teacher` are shapes of logits, computed or not."""
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
