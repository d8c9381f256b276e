"""Co-visibility: one person cannot be in two boxes of one frame.

Two tracklets of one video that share a frame show two people. A link or an identity that joins such tracklets is
wrong, so they give an estimate of the rate of false links without any label.
"""

import numpy as np
from scipy import sparse

_LINKS_AT_ONCE = 2**16


def number_frames(videos: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Numbers the distinct frames of all videos: `[n]`, -1 where the frame is unknown (negative)."""
    video, frame = (np.unique(codes, return_inverse=True)[1] for codes in (videos, frames))
    code = np.unique(video * (frame.max(initial=0) + 1) + frame, return_inverse=True)[1]
    return np.where(frames < 0, -1, code)


def joined(frame_ids: np.ndarray, assigned: np.ndarray, links: np.ndarray) -> np.ndarray:
    """Mask `[l]` of the links between groups that share a frame.

    Args:
        frame_ids: `[n]`, as `number_frames` gives them, -1 = unknown.
        assigned: `[n]`, the group of each image, -1 = none.
        links: `[l, 2]`, pairs of groups.
    """
    known = (assigned >= 0) & (frame_ids >= 0)
    rows, columns = assigned[known], frame_ids[known]
    shape = (assigned.max(initial=-1) + 1, frame_ids.max(initial=-1) + 1)
    seen = sparse.csr_array((np.ones(len(rows), np.int32), (rows, columns)), shape=shape)
    shared = [np.zeros(0, bool)]
    for start in range(0, len(links), _LINKS_AT_ONCE):
        left, right = links[start : start + _LINKS_AT_ONCE].T
        shared.append(np.asarray(seen[left].multiply(seen[right]).sum(1)).reshape(-1) > 0)
    return np.concatenate(shared)


def conflicts(frame_ids: np.ndarray, tracklets: np.ndarray, identities: np.ndarray) -> int:
    """Number of identities that two tracklets of one frame both have; all arguments are `[n]`."""
    known = (identities >= 0) & (frame_ids >= 0)
    seen = np.unique(np.stack([identities[known], frame_ids[known], tracklets[known]]), axis=1)
    twice = (seen[0, 1:] == seen[0, :-1]) & (seen[1, 1:] == seen[1, :-1])
    return len(np.unique(seen[0, 1:][twice]))
