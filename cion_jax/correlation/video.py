"""Single-video denoising: reassignment of excluded images (Eq. 5), merging of tracklets (Eq. 6).

Tracklets are numbered video by video, so that those of a video are contiguous; `video_lengths` `[videos]` is the
number of tracklets of each.
"""

import numpy as np

from cion_jax.correlation.engine.centroids import Groups, Vectors
from cion_jax.correlation.engine.distances import TIE, unit
from cion_jax.correlation.engine.linking import gathered, near_pairs, pair_distances, pairs_of
from cion_jax.correlation.engine.sharding import Track
from cion_jax.correlation.engine.tiles import Windows, compare
from cion_jax.runtime.arrays import RowArray
from cion_jax.runtime.processes import all_gather


def reassign(
    denoised: Groups,
    features: RowArray,
    tracklet: np.ndarray,
    video_lengths: np.ndarray,
    sigma_cst: float,
    track: Track,
) -> Groups:
    """Eq. 5, for all excluded images at once; those that fit no tracklet stay without a group.

        t_min = argmin_{t in v \\ t_own} dist(x, c_t),    t_min <- t_min + x  if dist(x, c_{t_min}) < sigma_cst

        x [d] excluded image,   v tracklets of its video,   c_t [d] centroid after Eq. 4,   dist = cosine distance

    Equal distances: lowest tracklet. Equals `reference.reassign`.

    Args:
        denoised: The groups after Eq. 4; their sums are updated in place (`Groups.joined`).
        features: `[n, d]`.
        tracklet: `[n]`, the original tracklet of each image.
        video_lengths: `[videos]`.
        sigma_cst: Cosine distance.
        track: Progress over the tiles of pairs.
    """
    excluded = np.flatnonzero(denoised.assigned < 0)
    excluded = excluded[np.argsort(tracklet[excluded], kind="stable")]
    images = np.asarray(unit(features[excluded]))
    target = _nearest(images, excluded, denoised, features, tracklet[excluded], video_lengths, sigma_cst, track)
    joins = target >= 0
    return denoised.joined(excluded[joins], images[joins], target[joins])


def merge(groups: Groups, features: RowArray, video_lengths: np.ndarray, sigma_drm: float, track: Track) -> np.ndarray:
    """Eq. 6: links p < q `[links, 2]` between tracklets of one video. Equals `reference.merge`.

    merge(t_p, t_q) = mu(sigma_drm - dist(c_p, c_q))    for all t_p, t_q in v

    mu(0) = 1,   v tracklets of a video,   c_p [d] centroid after Eq. 5,   dist = cosine distance
    """
    windows = Windows.within(video_lengths, int(video_lengths.max()))
    near = near_pairs(groups, features, windows, video_lengths, sigma_drm, track)
    return gathered(pairs[distances <= sigma_drm + TIE] for pairs, distances in near)


def _nearest(
    images: np.ndarray,
    rows: np.ndarray,
    denoised: Groups,
    features: RowArray,
    owners: np.ndarray,
    video_lengths: np.ndarray,
    sigma_cst: float,
    track: Track,
) -> np.ndarray:
    """Tracklet `[e]` that each excluded image joins, -1 = none.

    `images` `[e, d]` are unit features, `rows` `[e]` their rows and `owners` `[e]` their original tracklets.
    """
    vectors = Vectors.of_images(images)
    centroids = denoised.centroids
    windows, lengths = _own_videos(owners, video_lengths)
    candidates = all_gather(pairs_of(compare(vectors, centroids, windows, lengths, sigma_cst, track)))
    distances = pair_distances(vectors, centroids, candidates)
    slack = vectors.slack[candidates[:, 0]] + centroids.slack[candidates[:, 1]]

    def nearest(values: np.ndarray) -> np.ndarray:
        """Least value among the candidates of the same image, for each candidate."""
        least = np.full(len(images), np.inf)
        np.minimum.at(least, candidates[:, 0], values)
        return least[candidates[:, 0]]

    # Doubtful: rounding could change the nearest tracklet, or whether the image joins it.
    contends = distances - slack <= nearest(distances + slack)
    rivals = np.bincount(candidates[contends, 0], minlength=len(images))
    doubtful = contends & ((rivals[candidates[:, 0]] > 1) | (np.abs(distances - sigma_cst) <= slack))
    distances = np.where(contends, distances, np.inf)
    exact = denoised.exactly(features)
    distances[doubtful] = exact.distances_to(rows[candidates[doubtful, 0]], candidates[doubtful, 1])
    joins = (distances <= nearest(distances) + TIE) & (distances < sigma_cst - TIE)
    target = np.full(len(images), len(centroids))
    np.minimum.at(target, candidates[joins, 0], candidates[joins, 1])
    return np.where(target < len(centroids), target, -1)


def _own_videos(owners: np.ndarray, video_lengths: np.ndarray) -> tuple[Windows, np.ndarray]:
    """Windows over all tracklets of the video of each image except its own; number of images of each video."""
    ends = np.cumsum(video_lengths)
    video = np.searchsorted(ends, owners, side="right")
    high = ends[video]
    bounds = (high - video_lengths[video], high, owners)
    return Windows(*(bound.astype(np.int32) for bound in bounds)), np.bincount(video, minlength=len(ends))
