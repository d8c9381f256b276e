"""Co-visibility: one person cannot be in two boxes of one frame.

Two tracklets of one video that share a frame show two people, whoever they are. So the links and the identities
that join such tracklets are wrong, which says without any label how often links are wrong.
"""

import numpy as np
from scipy import sparse

_LINKS_AT_ONCE = 2**16


def moments(videos: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Numbers the frames of all videos: `[n]`, -1 where the frame is unknown (negative)."""
    video, frame = (np.unique(codes, return_inverse=True)[1] for codes in (videos, frames))
    code = np.unique(video * (frame.max(initial=0) + 1) + frame, return_inverse=True)[1]
    return np.where(frames < 0, -1, code)


def joined(moment: np.ndarray, assigned: np.ndarray, links: np.ndarray) -> np.ndarray:
    """Mask `[l]` of the `links` `[l, 2]` that join groups seen in the same frame.

    `assigned` `[n]` is the group of each image, -1 = none, and `moment` `[n]` when and where it was seen.
    """
    known = (assigned >= 0) & (moment >= 0)
    rows, columns = assigned[known], moment[known]
    shape = (assigned.max(initial=-1) + 1, moment.max(initial=-1) + 1)
    seen = sparse.csr_array((np.ones(len(rows), np.int32), (rows, columns)), shape=shape)
    both = [np.zeros(0, bool)]
    for start in range(0, len(links), _LINKS_AT_ONCE):
        left, right = links[start : start + _LINKS_AT_ONCE].T
        both.append(np.asarray(seen[left].multiply(seen[right]).sum(1)).reshape(-1) > 0)
    return np.concatenate(both)


def conflicts(moment: np.ndarray, tracklets: np.ndarray, identities: np.ndarray) -> int:
    """Number of identities that appear in two tracklets of the same frame."""
    known = (identities >= 0) & (moment >= 0)
    seen = np.unique(np.stack([identities[known], moment[known], tracklets[known]]), axis=1)
    twice = (seen[0, 1:] == seen[0, :-1]) & (seen[1, 1:] == seen[1, :-1])
    return len(np.unique(seen[0, 1:][twice]))
