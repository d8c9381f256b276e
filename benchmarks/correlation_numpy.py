"""Identity correlation written plainly in NumPy and SciPy: what somebody would write in an afternoon.

Eq. 4 to 7 one after the other, in float32, a tracklet, a video or a row at a time, with products by BLAS and closure
(of Eq. 6; that of Eq. 7 is left out) by SciPy. It checks nothing, watches nothing, and lets rounding decide.
`python -m benchmarks.correlation` times it.
"""

import time

import numpy as np
from scipy import sparse

SIGMA_CST, SIGMA_DRM = 0.2, 0.18


def seconds_of_levels(
    features: np.ndarray, per_tracklet: int, per_video: int, sequence: int, half_width: int, rows: int
) -> tuple[float, float, float]:
    """Seconds of levels 1 and 2 on these `features` `[n, d]`, and of `rows` rows of level 3.

    Tracklets and videos come in order, so many images and tracklets each. The range slides over the groups that level
    2 leaves, repeated where there are fewer than the `sequence` of them.
    """
    started = time.perf_counter()
    images = features.astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    tracklets = [images[start : start + per_tracklet] for start in range(0, len(images), per_tracklet)]
    kept = [denoised(tracklet) for tracklet in tracklets]
    first = time.perf_counter()
    groups = []
    for start in range(0, len(tracklets), per_video):
        video = slice(start, start + per_video)
        groups += merged(tracklets[video], kept[video])
    second = time.perf_counter()
    sequence_of = np.resize(centroids(groups), (sequence, features.shape[1]))
    ready = time.perf_counter()
    for row in range(rows):
        close_after(sequence_of, row, half_width)
    return first - started, second - first, time.perf_counter() - ready


def denoised(images: np.ndarray) -> np.ndarray:
    """Eq. 4: which images of a tracklet `[m, d]` stay."""
    kept = np.arange(len(images))
    while len(kept) > 1:
        left = images[kept]
        others = left.sum(0) - left
        away = 1 - (left * others).sum(1) / np.linalg.norm(others, axis=1)
        if away.max() < SIGMA_CST:
            break
        kept = np.delete(kept, away.argmax())
    return kept


def merged(tracklets: list[np.ndarray], kept: list[np.ndarray]) -> list[np.ndarray]:
    """Eq. 5 and 6: the images of each group of a video."""
    members = [[images[rows]] for images, rows in zip(tracklets, kept)]
    means = centroids([part[0] for part in members])
    for own, (images, rows) in enumerate(zip(tracklets, kept)):
        for stray in np.delete(images, rows, 0):
            away = 1 - means @ stray
            away[own] = np.inf
            if away.min() < SIGMA_CST:
                members[away.argmin()].append(stray[None])
    tracklets = [np.concatenate(part) for part in members]
    means = centroids(tracklets)
    labels = components(len(tracklets), np.argwhere(1 - means @ means.T <= SIGMA_DRM))
    return [
        np.concatenate([tracklets[i] for i in np.flatnonzero(labels == label)]) for label in range(labels.max() + 1)
    ]


def close_after(sequence: np.ndarray, row: int, half_width: int) -> np.ndarray:
    """Eq. 7: which of those after `row`, up to `half_width` on, are linked to it, counted from there."""
    return np.flatnonzero(1 - sequence[row + 1 : row + 1 + half_width] @ sequence[row] <= SIGMA_DRM)


def centroids(groups: list[np.ndarray]) -> np.ndarray:
    """Of groups of unit features, as unit vectors."""
    means = np.stack([group.mean(0) for group in groups])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def components(count: int, links: np.ndarray) -> np.ndarray:
    """Closure: the component of each of `count` nodes."""
    graph = sparse.coo_array((np.ones(len(links), bool), tuple(links.T)), shape=(count, count))
    return sparse.csgraph.connected_components(graph, directed=False)[1]
