"""Agreement of identities with the true persons, where these are known (rendered or labelled data)."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class PairwiseScores:
    """Precision, recall and F1 over unordered pairs of images, purity over images: in [0, 1], 1 for 0 / 0.

    Attributes:
        precision: Share of the pairs with one identity that show one person.
        recall: Share of the pairs that show one person that have one identity.
        f1: Harmonic mean of precision and recall.
        purity: Share of the images with an identity that show the most frequent person of that identity.
    """

    precision: float
    recall: float
    f1: float
    purity: float


def pairwise_scores(identities: np.ndarray, persons: np.ndarray) -> PairwiseScores:
    """Scores identities `[n]` against the true persons `[n]`, both integers.

    A discarded image (identity -1) shares its identity with no other, so discarding costs recall. A false
    positive of the tracker (person -1) counts as a person of its own. Counts are exact integers from the
    contingency table of identities and persons; no pair is enumerated.

    Raises:
        ValueError: The shapes differ.
    """
    identities, persons = np.asarray(identities), np.asarray(persons)
    if identities.shape != persons.shape or identities.ndim != 1:
        raise ValueError(
            f"identities of shape {identities.shape}, persons of shape {persons.shape}: expected one of each "
            f"for every image"
        )
    persons = _with_unique_false_positives(persons)
    kept = identities >= 0
    identities, columns = np.unique(identities[kept], return_inverse=True)[1], persons.max(initial=0) + 1
    cells, sizes = np.unique(identities * columns + persons[kept], return_counts=True)
    starts = np.flatnonzero(np.diff(cells // columns, prepend=-1))  # cells come sorted by identity
    claimed, true, correct = _pairs(identities), _pairs(persons), _choose_two(sizes)
    most_frequent = np.maximum.reduceat(sizes, starts).sum() if len(sizes) else 0
    return PairwiseScores(
        precision=_ratio(correct, claimed),
        recall=_ratio(correct, true),
        f1=_ratio(2 * correct, claimed + true),
        purity=_ratio(int(most_frequent), int(kept.sum())),
    )


def _with_unique_false_positives(persons: np.ndarray) -> np.ndarray:
    """Relabels persons `[n]` from 0 on, each row of person -1 with a label of its own."""
    nobody = persons < 0
    labels = np.unique(persons, return_inverse=True)[1]
    labels[nobody] = len(persons) + np.arange(np.count_nonzero(nobody))
    return labels


def _pairs(labels: np.ndarray) -> int:
    """Number of unordered pairs of rows with equal labels `[n]`."""
    return _choose_two(np.unique(labels, return_counts=True)[1])


def _choose_two(counts: np.ndarray) -> int:
    counts = counts.astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
