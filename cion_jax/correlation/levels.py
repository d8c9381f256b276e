"""Identity correlation: the three denoising levels of Sec. 3.2 in sequence."""

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
from cion_jax.correlation.rules import NEIGHBORS, check_rule, identities
from cion_jax.correlation.tracklet import denoise_tracklets
from cion_jax.runtime.arrays import RowArray
from cion_jax.runtime.progress import Progress, silent


@dataclasses.dataclass(frozen=True)
class LevelResult:
    """Result of one level.

    Attributes:
        level: 0 to 3.
        identities: `[n]` int32, numbered by first row, -1 = discarded.
        links: `[links, 2]`, pairs of identities *of the previous level* that are linked as one person, before
            transitive closure; empty at levels 0 and 1.
        covisible: `[links]` bool, the links between identities that share a frame, which cannot be one person; None
            if frames are not known.
        largest: The largest identities after closure, and their weakest links.
        groups: The groups after Eq. 6 in sliding order, from level 2 alone; their number is the order of the range.
        seconds: Wall time of this level alone.
    """

    level: int
    identities: np.ndarray
    links: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2), np.int64))
    covisible: np.ndarray | None = None
    largest: tuple[LargeIdentity, ...] = ()
    groups: Groups | None = None
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Correlation:
    """The identities `[n]` of the last level, and every level on the way, level 0 (tracklets) first."""

    identities: np.ndarray
    levels: tuple[LevelResult, ...]


def correlate(
    features: RowArray,
    videos: np.ndarray,
    tracklets: np.ndarray,
    *,
    sigma_cst: float = 0.2,
    sigma_drm: float = 0.18,
    half_width: int | str | None = 1000,
    levels: int = 3,
    frames: np.ndarray | None = None,
    forbid_covisible: bool = False,
    rule: str = "closure",
    neighbors: int = NEIGHBORS,
    on_level: Callable[[LevelResult], None] | None = None,
    progress: Progress = silent,
) -> Correlation:
    """Assigns an identity to every image (Sec. 3.2). Equals `reference.correlate`.

        level 0   t = tracklets of the tracker
        level 1   t <- t \\ {x}          while max_x dist(x, c_{t \\ x}) >= sigma_cst                    (Eq. 4)
        level 2   t_min <- t_min + x     if dist(x, c_{t_min}) < sigma_cst, for each x that was removed  (Eq. 5)
                  t_p ~ t_q              if dist(c_p, c_q) <= sigma_drm, in one video; closure           (Eq. 6)
        level 3   t_i ~ t_j              if dist(c_i, c_j) <= sigma_drm, |i - j| <= half_width; closure  (Eq. 7)

        x [d] L2-normalised image feature,   c_t [d] mean of the x of group t,   dist = cosine distance

    Images that fit no tracklet at level 2 are discarded.

    Args:
        features: `[n, d]` float16 or float32, may be a memory map; L2-normalised here, in float32.
        videos, tracklets: `[n]` integers; a tracklet number belongs to one video.
        sigma_cst, sigma_drm: Thresholds, cosine distances in [0, 2].
        half_width: Half width r_s of the sliding range, in groups; None or "all" compares every pair.
        levels: The last level to run, 0 to 3.
        frames: `[n]` integers, the frame of each image in its video, negative where unknown. If given, the results
            mark the links between groups that share a frame.
        forbid_covisible: Drop such links before closure; needs `frames`.
        rule: How links become identities at levels 2 and 3, one of `rules.RULES`; the paper's is "closure".
        neighbors: For the rule "mutual".
        on_level: Called with each `LevelResult` once it is computed.
        progress: Progress display, as `cion_jax.runtime.progress.progress`.

    Raises:
        ValueError: Invalid input, with the rows concerned, before any work starts.
    """
    checks.check_threshold("sigma_cst", sigma_cst)
    checks.check_threshold("sigma_drm", sigma_drm)
    checks.check_levels(levels)
    reach = checks.reach(half_width)
    checks.check_features(features)
    checks.check_tracklets(videos, tracklets, len(features))
    checks.check_frames(frames, len(features), forbid_covisible)
    check_rule(rule, neighbors, frames is not None)
    frame_ids = None if frames is None else covisible.number_frames(videos, frames)
    settings = _Settings(sigma_cst, sigma_drm, reach, frame_ids, forbid_covisible, rule, neighbors)
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
    frame_ids: np.ndarray | None
    forbid_covisible: bool
    rule: str
    neighbors: int


def _steps(
    features: RowArray, videos: np.ndarray, tracklets: np.ndarray, settings: _Settings, progress: Progress
) -> Iterator[LevelResult]:
    """Yields the results of levels 0 to 3, each computed on demand."""

    def track(title: str, unit: str) -> Track:
        return lambda total: progress(title, total, unit)

    tracklet, video_lengths = sliding_order(videos, tracklets)
    yield LevelResult(0, _numbered(tracklet))

    groups = _denoised(features, tracklet, settings.sigma_cst, track("single tracklets", "images"))
    yield LevelResult(1, _numbered(groups.assigned))

    names = _names(groups)
    groups = video.reassign(groups, features, tracklet, video_lengths, settings.sigma_cst, track("strays", "tiles"))
    links = video.merge(groups, features, video_lengths, settings.sigma_drm, track("single videos", "tiles"))
    groups, result = _merged(2, groups, links, names, features, settings)
    yield dataclasses.replace(result, groups=groups)

    links = cross_video.link(groups, features, settings.reach, settings.sigma_drm, track("across videos", "tiles"))
    yield _merged(3, groups, links, _names(groups), features, settings)[1]


def _denoised(features: RowArray, tracklet: np.ndarray, sigma_cst: float, track: Track) -> Groups:
    """Groups after Eq. 4. Nothing else may keep their sums, which the later levels add up in place."""
    kept, sums = denoise_tracklets(features, tracklet, sigma_cst, track)
    return Groups(np.where(kept, tracklet, -1), sums)


def _merged(
    level: int, groups: Groups, links: np.ndarray, names: np.ndarray, features: RowArray, settings: _Settings
) -> tuple[Groups, LevelResult]:
    """Groups after closure of `links` `[l, 2]` by the rule, and the result of the level.

    `names` `[groups]` are the identities of the groups before closure.
    """
    joined = None
    if settings.frame_ids is not None:
        joined = covisible.joined(settings.frame_ids, groups.assigned, links)
        if settings.forbid_covisible:
            links, joined = links[~joined], joined[~joined]
    group = identities(settings.rule, groups, links, features, settings.frame_ids, settings.neighbors)
    after = groups.merged(group, final=True)
    largest = tuple(largest_identities(groups, links, after, names))
    result = LevelResult(level, _numbered(after.assigned), names[links], joined, largest)
    # The sums come last: they take the place of the old ones.
    return (after if level == 3 else groups.merged(group)), result


def _numbered(group: np.ndarray) -> np.ndarray:
    """Identities `[n]` from groups `[n]`, in int32: a large crawl keeps those of every level."""
    return numbered(group).astype(np.int32)


def _names(groups: Groups) -> np.ndarray:
    """Identity number `[groups]` of each group."""
    present = groups.assigned >= 0
    names = np.empty(len(groups.sums), np.int64)
    names[groups.assigned[present]] = numbered(groups.assigned)[present]
    return names


def sliding_order(videos: np.ndarray, tracklets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers tracklets in the sliding order of Eq. 7.

    Videos are in order of first appearance, their tracklets in order of first row. So the tracklets of a video are
    contiguous, the lowest number is the earliest, and groups numbered by their lowest tracklet stay in order.

    Returns:
        Tracklet number of each image `[n]` int32, and number of tracklets of each video `[videos]`.
    """
    codes = numbered(tracklets)
    first = np.unique(codes, return_index=True)[1]
    video_of = numbered(videos)[first]
    order = np.argsort(video_of, kind="stable")
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    return place[codes], np.bincount(video_of)
