"""Single-video denoising: stray images find their tracklet (Eq. 5), tracklets of one person merge (Eq. 6).

Tracklets are numbered video by video, so that those of a video are neighbours; `video_lengths` `[videos]`
says how many each has.
"""

import numpy as np

from cion_jax.correlation.engine.centroids import Groups, Vectors
from cion_jax.correlation.engine.distances import TIE, unit
from cion_jax.correlation.engine.linking import close_pairs, pair_distances, pairs_of
from cion_jax.correlation.engine.sharding import Track
from cion_jax.correlation.engine.tiles import Windows, compare
from cion_jax.runtime.processes import all_gather


def reassign(
    denoised: Groups,
    features: np.ndarray,
    tracklet: np.ndarray,
    video_lengths: np.ndarray,
    sigma_cst: float,
    track: Track,
) -> Groups:
    """Applies Eq. 5 to all excluded images at once; those that fit nowhere stay without a group.

        t_min = argmin_{t in video, t != own} dist(x, c_t);   x joins t_min if dist(x, c_t_min) < sigma_cst

    `denoised` are the images `features` `[n, d]` that their tracklets keep, and are of no use afterwards
    (`Groups.joined`); `tracklet` `[n]` is the one that each was in. Equal distances: lowest tracklet.
    """
    excluded = np.flatnonzero(denoised.assigned < 0)
    excluded = excluded[np.argsort(tracklet[excluded], kind="stable")]
    images = np.asarray(unit(features[excluded]))
    target = _nearest(images, excluded, denoised, features, tracklet[excluded], video_lengths, sigma_cst, track)
    joins = target >= 0
    return denoised.joined(excluded[joins], images[joins], target[joins])


def merge(
    groups: Groups, features: np.ndarray, video_lengths: np.ndarray, sigma_drm: float, track: Track
) -> np.ndarray:
    """Eq. 6: the pairs `[links, 2]` of tracklets of one video with dist(c_p, c_q) <= sigma_drm."""
    return close_pairs(groups, features, video_lengths, int(video_lengths.max()), sigma_drm, track)


def _nearest(
    images: np.ndarray,
    rows: np.ndarray,
    denoised: Groups,
    features: np.ndarray,
    owners: np.ndarray,
    video_lengths: np.ndarray,
    sigma_cst: float,
    track: Track,
) -> np.ndarray:
    """The tracklet each of the `images` `[e, d]` goes to, -1 for none; they are in `rows`, and were in `owners`."""
    vectors = Vectors.of_images(images)
    centroids = denoised.centroids
    windows, lengths = _own_videos(owners, video_lengths)
    candidates = all_gather(pairs_of(compare(vectors, centroids, windows, lengths, sigma_cst, track)))
    away = pair_distances(vectors, centroids, candidates)
    slack = vectors.slack[candidates[:, 0]] + centroids.slack[candidates[:, 1]]

    def nearest(distances: np.ndarray) -> np.ndarray:
        least = np.full(len(images), np.inf)
        np.minimum.at(least, candidates[:, 0], distances)
        return least[candidates[:, 0]]

    # In doubt is an image that could join one of several, or with rounding the one or none.
    contends = away - slack <= nearest(away + slack)
    rivals = np.bincount(candidates[contends, 0], minlength=len(images))
    doubtful = contends & ((rivals[candidates[:, 0]] > 1) | (np.abs(away - sigma_cst) <= slack))
    away = np.where(contends, away, np.inf)
    exact = denoised.exactly(features)
    away[doubtful] = exact.distances_to(rows[candidates[doubtful, 0]], candidates[doubtful, 1])
    joins = (away <= nearest(away) + TIE) & (away < sigma_cst - TIE)
    target = np.full(len(images), len(centroids))
    np.minimum.at(target, candidates[joins, 0], candidates[joins, 1])
    return np.where(target < len(centroids), target, -1)


def _own_videos(owners: np.ndarray, video_lengths: np.ndarray) -> tuple[Windows, np.ndarray]:
    """All tracklets of the video of each image, but for its own; and how many images each video has."""
    ends = np.cumsum(video_lengths)
    video = np.searchsorted(ends, owners, side="right")
    high = ends[video]
    bounds = (high - video_lengths[video], high, owners)
    return Windows(*(bound.astype(np.int32) for bound in bounds)), np.bincount(video, minlength=len(ends))
