"""Ragged groups (tracklets of any length, videos of any size) as padded arrays of a few shapes."""

from collections.abc import Callable, Iterator

import numpy as np

# A group padded from w to W rows costs W^2 products where w^2 would do; at most this share of W^2 is waste.
MOST_WASTE = 0.3


def padded_widths(longest: int, widest: int) -> np.ndarray:
    """Widths 1, 2, 3, 4, 5, 7, 9, 11, ... up to `longest` or just beyond it, but none beyond `widest`.

    Each is the largest that keeps the waste of the shortest group it holds, one longer than the width before,
    at or below `MOST_WASTE`.
    """
    widths = [1]
    while widths[-1] < longest:
        widths.append(min(widest, int((widths[-1] + 1) / (1 - MOST_WASTE) ** 0.5)))
    return np.array(widths)


def padded_batches(
    lengths: np.ndarray, row_bytes: int, square_bytes: int, budget: int, widest: int = 2**31
) -> Iterator[tuple[int, np.ndarray]]:
    """Cuts groups into batches of one width: yields (width, numbers of the groups in the batch).

    A batch takes at most `budget` bytes (or holds a single group), at `row_bytes` for each padded row and
    `square_bytes` for each pair of padded rows of a group. Batches of one width are of nearly equal size, so
    that they compile to at most two programs. Every group is in exactly one batch, but for those of length 0.
    """

    def padded_bytes(width: int) -> int:
        return width * row_bytes + width * width * square_bytes

    for width, members in _buckets(lengths, padded_bytes, budget, widest):
        most = max(1, budget // padded_bytes(width))
        for batch in np.array_split(members, -(-len(members) // most)):
            yield width, batch


def _buckets(
    lengths: np.ndarray, padded_bytes: Callable[[int], int], budget: int, widest: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Groups by padded width. Small buckets join their wider neighbours as long as all fit into one batch,
    since every width must be compiled for.
    """
    present = np.flatnonzero(lengths)
    widths = padded_widths(lengths.max(initial=1), widest)
    rung = np.searchsorted(widths, lengths[present])
    width, members = 0, present[:0]
    for index in np.unique(rung):
        more = present[rung == index]
        wider = int(widths[index])
        if len(members) and (len(members) + len(more)) * padded_bytes(wider) > budget:
            yield width, members
            members = present[:0]
        width, members = wider, np.concatenate([members, more])
    if len(members):
        yield width, members
