"""Eq. 8-9 as printed in Sec. 3.3, by explicit loops in NumPy float64: the reference for `loss.py`.

Axes: student logits are `[views, batch, prototypes]`, teacher logits `[2, batch, prototypes]`, the center
`[1, prototypes]`. Views 0 and 1 are the global ones. Images of one identity are adjacent in the batch, K of each.
K is `images_per_identity` (N_id in the paper, whose K is the number of prototypes here).
"""

from collections.abc import Iterator

import numpy as np


def distribution(logits: np.ndarray, temperature: float, center: np.ndarray | float = 0.0) -> np.ndarray:
    """Eq. 8: softmax over the last axis, P^(i) = exp((f^(i) - c^(i)) / tau) / sum_k exp((f^(k) - c^(k)) / tau).

    The center c is the running mean of the teacher's logits; the student's center is 0.
    """
    return np.exp(log_distribution(logits, temperature, center))


def log_distribution(logits: np.ndarray, temperature: float, center: np.ndarray | float = 0.0) -> np.ndarray:
    """The logarithm of `distribution`, log P^(i) = (f^(i) - c^(i)) / tau - log sum_k exp((f^(k) - c^(k)) / tau).

    It is finite for logits however far apart, where a probability of 0 has no logarithm.
    """
    scaled = (np.asarray(logits, np.float64) - center) / temperature
    scaled -= scaled.max(-1, keepdims=True)  # cancels; it prevents overflow
    return scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))


def cross_entropy(target: np.ndarray, log_prediction: np.ndarray) -> float:
    """H(a, b) = -sum_i a^(i) log b^(i), in nats, of a distribution a and the logarithm of another, `[prototypes]`."""
    return -float((target * log_prediction).sum())


def equation_9(
    student: np.ndarray,
    teacher: np.ndarray,
    center: np.ndarray,
    images_per_identity: int,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> float:
    """Eq. 9 averaged over its terms, `form="paper"`: mean of H(P_T(x_i^a), P_S(x_j^v)).

    The terms are all ordered pairs (i, j) of images of one identity, both teacher views a and all student views v,
    except the identical view of the identical image (x' = x: i = j and a = v).
    """
    log_student = log_distribution(student, student_temperature)
    p_teacher = distribution(teacher, teacher_temperature, np.asarray(center, np.float64))
    views, batch, _ = log_student.shape
    terms = []
    for identity in _identities(batch, images_per_identity):
        for i in identity:
            for j in identity:
                for a in range(2):
                    for v in range(views):
                        if (a, i) != (v, j):
                            terms.append(cross_entropy(p_teacher[a, i], log_student[v, j]))
    return float(np.mean(terms))


def released(
    student: np.ndarray,
    teacher: np.ndarray,
    center: np.ndarray,
    images_per_identity: int,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> float:
    """The loss of the authors' code, `form="released"`. It differs from Eq. 9 in its terms and their weights.

    Equal view indices (a = v) are left out for every pair of images, not only for the identical image. For each
    (a, v), the mean over same-image terms and the K(K-1) means over cross-image terms (one for each ordered pair of
    places in an identity, over identities) have equal weight.
    """
    log_student = log_distribution(student, student_temperature)
    p_teacher = distribution(teacher, teacher_temperature, np.asarray(center, np.float64))
    views, batch, _ = log_student.shape
    identities = list(_identities(batch, images_per_identity))
    by_views = []
    for a in range(2):
        for v in range(views):
            if a == v:
                continue
            means = [np.mean([cross_entropy(p_teacher[a, i], log_student[v, i]) for i in range(batch)])]
            for m in range(images_per_identity):
                for n in range(images_per_identity):
                    if m != n:
                        terms = [cross_entropy(p_teacher[a, x[m]], log_student[v, x[n]]) for x in identities]
                        means.append(np.mean(terms))
            by_views.append(np.mean(means))
    return float(np.mean(by_views))


def _identities(batch: int, images_per_identity: int) -> Iterator[range]:
    """Positions in the batch of each identity's images."""
    for first in range(0, batch, images_per_identity):
        yield range(first, first + images_per_identity)
