"""Identity numbers that stay when a crawl grows or shrinks, and the list of those that do not."""

from typing import NamedTuple

import numpy as np


class Change(NamedTuple):
    """`images` images of identity `before` now have identity `after`; None if they were removed."""

    before: int
    after: int | None
    images: int


def carry_over(identities: np.ndarray, earlier: np.ndarray, unused: int) -> np.ndarray:
    """Renumbers identities such that earlier ones keep their numbers.

    An earlier number goes to the identity with most of its images (of equals, the lowest). Of several numbers, an
    identity takes the lowest; without any, the next one from `unused` on.

    Args:
        identities: `[n]`, numbered by first row, -1 = discarded.
        earlier: `[n]`, the earlier identity of each row, -1 = none.
        unused: The first number that no identity has ever had.
    """
    both = (identities >= 0) & (earlier >= 0)
    (now, before), counts = _pairs(identities[both], earlier[both])
    order = np.lexsort((now, -counts, before))
    largest = order[np.unique(before[order], return_index=True)[1]]  # part of each earlier identity
    number = np.full(identities.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(number, now[largest], before[largest])
    unnamed = np.flatnonzero(number == np.iinfo(np.int64).max)
    number[unnamed] = unused + np.arange(len(unnamed))
    return np.where(identities >= 0, number[identities], -1)


def changes(after: np.ndarray, before: np.ndarray) -> list[Change]:
    """Identities whose images have another number now, in order; both arguments are `[n]`.

    Of the rows, those with -1 in `before` had no identity, and those with -1 in `after` have been removed.
    """
    had = before >= 0
    (old, new), counts = _pairs(before[had], after[had])
    moved = old != new
    triples = zip(old[moved].tolist(), new[moved].tolist(), counts[moved].tolist())
    return [Change(a, None if b < 0 else b, count) for a, b, count in triples]


def _pairs(left: np.ndarray, right: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The distinct pairs of two columns `[m]`, in order, and how often each occurs."""
    width = int(right.max(initial=0)) + 2  # -1 is a value too
    codes, counts = np.unique(left.astype(np.int64) * width + right + 1, return_counts=True)
    return (codes // width, codes % width - 1), counts
