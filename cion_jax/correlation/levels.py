"""Identity correlation: the three denoising levels of Sec. 3.2, one after the other."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from cion_jax.correlation import checks, covisible, cross_video, video
from cion_jax.correlation.chaining import LargeIdentity, largest_identities
from cion_jax.correlation.closure import numbered
from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.engine.sharding import Track
from cion_jax.correlation.tracklet import denoise_tracklets
from cion_jax.runtime.progress import Progress, silent


@dataclasses.dataclass(frozen=True)
class LevelResult:
    """The result of one denoising level.

    identities: `[n]` int64, numbered by first row, -1 = discarded.
    links:      `[links, 2]` the pairs of identities *of the level before* that were found to be one person,
                before transitive closure; empty at levels 0 and 1.
    covisible:  `[links]` which of the links join what is seen at one moment and cannot be one person; None where
                frames are not known.
    largest:    the largest identities that the links made, and what holds them together.
    seconds:    wall time of this level alone.
    """

    level: int
    identities: np.ndarray
    links: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2), np.int64))
    covisible: np.ndarray | None = None
    largest: tuple[LargeIdentity, ...] = ()
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Correlation:
    """The identities `[n]` of the last level, and every level on the way, level 0 (tracklets) first."""

    identities: np.ndarray
    levels: tuple[LevelResult, ...]


def correlate(
    features: np.ndarray,
    videos: np.ndarray,
    tracklets: np.ndarray,
    *,
    sigma_cst: float = 0.2,
    sigma_drm: float = 0.18,
    half_width: int | str | None = 1000,
    levels: int = 3,
    frames: np.ndarray | None = None,
    forbid_covisible: bool = False,
    on_level: Callable[[LevelResult], None] | None = None,
    progress: Progress = silent,
) -> Correlation:
    """Finds out which images show the same person (Sec. 3.2).

    Level 0 are the tracklets as they came; level 1 removes images that stray from their tracklet (Eq. 4);
    level 2 gives these to the tracklet of their video that they fit, or discards them, and merges tracklets
    of one video (Eq. 5, 6); level 3 merges across videos inside the Sliding Range (Eq. 7).

    features:   `[n, d]` float16 or float32, may be a memory map; L2-normalised here, in float32.
    videos, tracklets: `[n]` integers; a tracklet number belongs to one video.
    sigma_cst, sigma_drm: thresholds, cosine distances: images leave at >= sigma_cst, join at < sigma_cst, and
                groups merge at <= sigma_drm.
    half_width: how many places the Sliding Range reaches to either side; None or "all" compares every pair.
    levels:     the last level to run, 0 to 3.
    frames:     `[n]` integers, the frame of its video that each image is from, negative where unknown. With them
                every level says which of its links join what one frame shows twice.
    forbid_covisible: leave such links out before closure; needs `frames`.
    on_level:   called with each `LevelResult` as it is there.
    progress:   shows how far a level is, as `cion_jax.runtime.progress.progress` does.

    Raises `ValueError` on input that does not fit, with the rows concerned, before any work starts.
    """
    checks.check_threshold("sigma_cst", sigma_cst)
    checks.check_threshold("sigma_drm", sigma_drm)
    checks.check_levels(levels)
    reach = checks.reach(half_width)
    checks.check_features(features)
    checks.check_tracklets(videos, tracklets, len(features))
    checks.check_frames(frames, len(features), forbid_covisible)
    moment = None if frames is None else covisible.moments(videos, frames)
    settings = _Settings(sigma_cst, sigma_drm, reach, moment, forbid_covisible)
    steps = _steps(features, videos, tracklets, settings, progress)
    results: list[LevelResult] = []
    for _ in range(levels + 1):
        started = time.perf_counter()
        result = next(steps)
        results.append(dataclasses.replace(result, seconds=time.perf_counter() - started))
        if on_level is not None:
            on_level(results[-1])
    return Correlation(results[-1].identities, tuple(results))


class _Settings(NamedTuple):
    sigma_cst: float
    sigma_drm: float
    reach: int | None
    moment: np.ndarray | None
    forbid_covisible: bool


def _steps(
    features: np.ndarray, videos: np.ndarray, tracklets: np.ndarray, settings: _Settings, progress: Progress
) -> Iterator[LevelResult]:
    """Yields levels 0 to 3, each computed when it is asked for."""

    def track(title: str, unit: str) -> Track:
        return lambda total: progress(title, total, unit)

    tracklet, video_lengths = sliding_order(videos, tracklets)
    yield LevelResult(0, numbered(tracklet))

    kept, sums = denoise_tracklets(features, tracklet, settings.sigma_cst, track("single tracklets", "images"))
    groups = Groups(np.where(kept, tracklet, -1), sums)
    yield LevelResult(1, numbered(groups.assigned))

    names = _names(groups)
    groups = video.reassign(groups, features, tracklet, video_lengths, settings.sigma_cst, track("strays", "tiles"))
    links = video.merge(groups, features, video_lengths, settings.sigma_drm, track("single videos", "tiles"))
    groups, result = _merged(2, groups, links, names, settings)
    yield result

    links = cross_video.link(groups, features, settings.reach, settings.sigma_drm, track("across videos", "tiles"))
    yield _merged(3, groups, links, _names(groups), settings)[1]


def _merged(
    level: int, groups: Groups, links: np.ndarray, names: np.ndarray, settings: _Settings
) -> tuple[Groups, LevelResult]:
    """Groups after transitive closure of `links`; what this says about the level, by the `names` of the groups."""
    joined = None
    if settings.moment is not None:
        joined = covisible.joined(settings.moment, groups.assigned, links)
        if settings.forbid_covisible:
            links, joined = links[~joined], joined[~joined]
    after = groups.merged(links, final=level == 3)
    largest = tuple(largest_identities(groups, links, after, names))
    return after, LevelResult(level, numbered(after.assigned), names[links], joined, largest)


def _names(groups: Groups) -> np.ndarray:
    """The identity `[groups]` that each group is called by."""
    present = groups.assigned >= 0
    names = np.empty(len(groups.sums), np.int64)
    names[groups.assigned[present]] = numbered(groups.assigned)[present]
    return names


def sliding_order(videos: np.ndarray, tracklets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers tracklets in the order that Eq. 7 slides over them, and counts those of each video.

    Videos come in order of first appearance, their tracklets in order of first row. So tracklets of a video
    are neighbours, the lowest number is the earliest, and groups numbered by their lowest tracklet are in
    order too.
    """
    codes = numbered(tracklets)
    first = np.unique(codes, return_index=True)[1]
    video_of = numbered(videos)[first]
    order = np.argsort(video_of, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place[codes], np.bincount(video_of)
