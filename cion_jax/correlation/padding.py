"""Ragged groups (tracklets of any length, videos of any size) as padded arrays of a few shapes."""

from collections.abc import Iterator

import numpy as np

# A group padded from w to W rows costs W^2 products where w^2 would do; at most this share of W^2 is waste.
MOST_WASTE = 0.3


def padded_widths(longest: int) -> np.ndarray:
    """Widths 1, 2, 3, 4, 5, 7, 9, 11, ... up to `longest`, which is the last.

    Each is the largest that keeps the waste of the shortest group it holds, one longer than the width before,
    at or below `MOST_WASTE`.
    """
    widths = [1]
    while widths[-1] < longest:
        widths.append(min(longest, int((widths[-1] + 1) / (1 - MOST_WASTE) ** 0.5)))
    return np.array(widths)


def padded_batches(
    lengths: np.ndarray, row_bytes: int, square_bytes: int, budget: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Cuts groups into batches of one width: yields (width, numbers of the groups in the batch).

    A batch takes at most `budget` bytes (or holds a single group), at `row_bytes` for each padded row and
    `square_bytes` for each pair of padded rows of a group. Batches of one width are of nearly equal size, so
    that they compile to at most two programs. Every group is in exactly one batch, but for those of length 0.
    """
    if lengths.size == 0 or lengths.max() == 0:
        return
    widths = padded_widths(int(lengths.max()))
    rung = np.searchsorted(widths, lengths)
    for index in np.unique(rung[lengths > 0]):
        width = int(widths[index])
        members = np.flatnonzero((rung == index) & (lengths > 0))
        most = max(1, budget // (width * row_bytes + width * width * square_bytes))
        for batch in np.array_split(members, -(-len(members) // most)):
            yield width, batch
