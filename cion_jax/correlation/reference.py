"""Eq. 1-7 of the paper as plain float64 NumPy: slow, short, and the definition that the fast functions equal.

Notation and conventions, which hold for every equation:

    x_i     [d]  L2-normalised feature of an image        c_k  [d]  centroid: mean of the x_i of group k
    dist(a, b) = 1 - a . b / (|a| |b|)                    cosine distance, 0 to 2; 1 if the features cancel out
    mu(z) = 1 if z >= 0 else 0                            unit step, mu(0) = 1

Distances within `TIE` of each other or of a threshold are equal to it; among equal candidates the lowest row (Eq. 4)
or earliest tracklet (Eq. 5) is taken. A group is the ascending list of its rows; sigma_cst and sigma_drm are cosine
distances. Used by the tests and for reading: `correlate` costs O(n^2) distances and more.
"""

from collections.abc import Sequence

import numpy as np

TIE = 1e-9
CANCELLED = 1e-6  # a shorter vector has no direction

Group = list[int]


def unit(features: np.ndarray) -> np.ndarray:
    """L2-normalises features `[n, d]` in float64."""
    features = np.asarray(features, np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def dist(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine distance of two vectors `[d]`."""
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    return 1 - float(a @ b) / float(lengths[0] * lengths[1]) if min(lengths) >= CANCELLED else 1.0


def mu(value: float) -> bool:
    """Unit step with mu(0) = 1."""
    return value >= -TIE


def centroid(x: np.ndarray, rows: Group) -> np.ndarray:
    """c = mean of x_i over `rows`, `[d]`."""
    return x[rows].mean(0)


def consistency_noise(x: np.ndarray, rows: Group, sigma_cst: float) -> bool:
    """Eq. 1 for one identity.

    n_k^cst = mu(r_k - sigma_cst),   r_k = max_i dist(x_i, c_k)
    """
    radius = max(dist(x[i], centroid(x, rows)) for i in rows)
    return mu(radius - sigma_cst)


def discrimination_noise(c_i: np.ndarray, c_j: np.ndarray, sigma_drm: float) -> bool:
    """Eq. 2 for one pair of identities.

    n_{i,j}^drm = mu(sigma_drm - d_{i,j}),   d_{i,j} = dist(c_i, c_j)
    """
    return mu(sigma_drm - dist(c_i, c_j))


def noise(
    features: np.ndarray, identities: np.ndarray, sigma_cst: float, sigma_drm: float
) -> tuple[float, float, float]:
    """Eq. 3 over the M identities of `features` `[n, d]`; rows of identity -1 are left out.

        n_S = (sum_k n_k^cst + sum_i sum_{j != i} n_{i,j}^drm) / M       (i, j) and (j, i) both count

    Returns:
        n_S, and its consistency and discrimination parts, each divided by M.
    """
    x = unit(features)
    groups = [np.flatnonzero(identities == k).tolist() for k in np.unique(identities) if k >= 0]
    centroids = [centroid(x, rows) for rows in groups]
    pairs = [(i, j) for i in range(len(groups)) for j in range(len(groups)) if i != j]
    consistency = sum(consistency_noise(x, rows, sigma_cst) for rows in groups) / len(groups)
    discrimination = sum(discrimination_noise(centroids[i], centroids[j], sigma_drm) for i, j in pairs) / len(groups)
    return consistency + discrimination, consistency, discrimination


def denoise_tracklet(x: np.ndarray, tracklet: Group, sigma_cst: float) -> tuple[Group, Group]:
    """Eq. 4: removes the most deviating image until its deviation is below sigma_cst or one image is left.

        x_dev = argmax_{x_i in t} dist(x_i, c_{t \\ x_i})                 tie: lowest row
        t <- t \\ x_dev,  t_exc <- t_exc + x_dev    while dist(x_dev, c_{t \\ x_dev}) >= sigma_cst

    Returns:
        The rows kept, t, and the rows excluded, t_exc, in the order of their removal.
    """
    kept, excluded = list(tracklet), []
    while len(kept) > 1:
        deviations = [dist(x[i], centroid(x, [j for j in kept if j != i])) for i in kept]
        if not mu(max(deviations) - sigma_cst):
            break
        excluded.append(kept.pop(_first(deviations, max(deviations))))
    return kept, excluded


def reassign(x: np.ndarray, kept: Sequence[Group], excluded: Sequence[Group], sigma_cst: float) -> list[Group]:
    """Eq. 5 for the tracklets of one video, all excluded images at once.

        t_min = argmin_{t_r in v \\ t_k} dist(x_i^k, c_{t_r})              tie: earliest tracklet
        t_min <- t_min + x_i^k   if dist(x_i^k, c_{t_min}) < sigma_cst    otherwise x_i^k is discarded

    Centroids are those of the rows `kept` by Eq. 4, before any reassignment. Returns the groups after it.
    """
    groups = [list(rows) for rows in kept]
    for own, strays in enumerate(excluded):
        others = [k for k in range(len(kept)) if k != own]
        for i in strays if others else []:
            distances = [dist(x[i], centroid(x, kept[k])) for k in others]
            if not mu(min(distances) - sigma_cst):
                groups[others[_first(distances, min(distances))]].append(i)
    return [sorted(rows) for rows in groups]


def merge(x: np.ndarray, groups: list[Group], sigma_drm: float) -> list[tuple[int, int]]:
    """Eq. 6: links (p, q), p < q, between the groups of one video, by centroids after Eq. 5.

    merge(t_p, t_q) = mu(sigma_drm - dist(c_p, c_q))
    """
    return link(x, groups, len(groups), sigma_drm)


def link(x: np.ndarray, groups: list[Group], half_width: int | None, sigma_drm: float) -> list[tuple[int, int]]:
    """Eq. 7: links (i, c), i < c, between groups at most `half_width` places apart (None: any two).

    LR(t_i, t_c) = merge(t_i, t_c)   for all t_i in SR_c \\ t_c,   SR_c = {t_i : |i - c| <= r_s}
    """
    centroids, reach = [centroid(x, rows) for rows in groups], len(groups) if half_width is None else half_width
    pairs = [(i, c) for i in range(len(groups)) for c in range(i + 1, len(groups)) if c - i <= reach]
    return [(i, c) for i, c in pairs if mu(sigma_drm - dist(centroids[i], centroids[c]))]


def closure(groups: list[Group], links: list[tuple[int, int]]) -> list[Group]:
    """Transitive closure of the links: connected components, in the order of their first group."""
    component = list(range(len(groups)))
    for i, j in links:
        low, high = sorted((component[i], component[j]))
        component = [low if label == high else label for label in component]
    merged = [[k for k in range(len(groups)) if component[k] == label] for label in sorted(set(component))]
    return [sorted(row for k in members for row in groups[k]) for members in merged]


def correlate(
    features: np.ndarray,
    videos: np.ndarray,
    tracklets: np.ndarray,
    sigma_cst: float = 0.2,
    sigma_drm: float = 0.18,
    half_width: int | None = 1000,
) -> list[np.ndarray]:
    """Sec. 3.2: Eq. 4, then Eq. 5 and 6 in each video, then Eq. 7 across videos.

    The sliding range runs over videos in order of first appearance, and over the groups of a video by first row of
    their first tracklet.

    Args:
        features: `[n, d]`.
        videos, tracklets: `[n]` integers; a tracklet number belongs to one video.
        sigma_cst, sigma_drm: cosine distances.
        half_width: r_s, in groups; None links across everything.

    Returns:
        Identities `[n]` after levels 0 (tracklets), 1, 2 and 3, numbered by first row, -1 = discarded.
    """
    x = unit(features)
    initial, denoised, merged = [], [], []
    for video in dict.fromkeys(videos):
        names = dict.fromkeys(tracklets[videos == video])
        members = [np.flatnonzero(tracklets == name).tolist() for name in names]
        kept, excluded = zip(*(denoise_tracklet(x, rows, sigma_cst) for rows in members))
        groups = reassign(x, kept, excluded, sigma_cst)
        initial += members
        denoised += kept
        merged += closure(groups, merge(x, groups, sigma_drm))
    identities = closure(merged, link(x, merged, half_width, sigma_drm))
    return [_numbered(groups, len(x)) for groups in (initial, denoised, merged, identities)]


def _first(values: list[float], extreme: float) -> int:
    """Index of the first value that equals the extreme one."""
    return next(index for index, value in enumerate(values) if abs(value - extreme) <= TIE)


def _numbered(groups: list[Group], images: int) -> np.ndarray:
    """Identity of each image `[n]`, numbered by first row; -1 for rows in no group."""
    identities = np.full(images, -1)
    for number, rows in enumerate(sorted(groups, key=min)):
        identities[rows] = number
    return identities
