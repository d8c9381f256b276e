"""Calibration of the thresholds for given features, without labels, from tracklets and frames.

The paper's thresholds fit the distances of its extractor. Two facts hold for any crawl without labels: images of one
tracklet mostly show one person, and two tracklets of one video that share a frame show two. So each threshold is set
between the distances of these two kinds, measured as in its equation:

    sigma_cst   same:       an image and the mean of the other images of its tracklet (Eq. 4)
                different:  an image and the centroid of another tracklet in its frame (Eq. 5)
    sigma_drm   same:       the centroids of the first and the second half, in time, of one tracklet
                different:  the centroids of two tracklets that share a frame (Eq. 6)

The proposal is the largest threshold, in steps of `STEP`, at which at most the stated share of *different* distances
joins: those < sigma_cst, those <= sigma_drm. The rate is per compared pair: a group that is compared with a thousand
others has a thousand times as many false links. So `Calibration.propose` divides the false links that a group may have
by the number of its comparisons. Shares below `BODY` follow the normal distribution through the median and that
quantile of the distances: no sample shows events of one in a million, and of the few distances below, most are errors
of the tracker. Assumptions:

- Trackers switch identities, and the few tracklets that share a frame with another of the same person would dominate
  rare events. So a frame counts only if both tracklets have a *typical* image in it: one in the nearer half of the
  images of its tracklet, by distance to the mean of the others.
- The distances of different people have the tail of a normal distribution. Look-alikes make it heavier, so a threshold
  for very small shares is too loose; `cion_jax.correlation.chaining.unchained_threshold` bounds it by the links.
- People in one frame share light and camera; people in two videos tend to be farther apart, unless the features are
  centered by video (`cion_jax.features.adaptation`).
- Tracklets are those of the tracker, before Eq. 4. Halves are means of half as many images, hence noisier than what
  Eq. 6 compares.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import betaincinv
from scipy.stats import norm

from cion_jax.correlation import checks, covisible
from cion_jax.correlation.closure import numbered
from cion_jax.correlation.engine.distances import SHORTEST_SUM, TIE, directions, distance, exact_unit
from cion_jax.runtime.arrays import RowArray
from cion_jax.runtime.progress import Progress, silent

TRACKLETS, PAIRS = 20_000, 50_000  # sample sizes: 50 events at a rate of one in a thousand
FEWEST_HALVED = 4  # images of a tracklet that is split into halves
FEWEST_PAIRS = 100  # that share a frame: five below the quantile of `BODY`
STEP = 1e-4  # of proposed thresholds
BODY = 0.05  # smallest share that is measured on the distances; smaller ones are extrapolated
# Largest share of the images of a tracklet that sigma_cst may remove: trackers are wrong in few images.
LEAVING = 0.05
CONFIDENCE = 0.95

_ROWS_AT_ONCE, _PAIRS_AT_ONCE, _LOOKUPS_AT_ONCE = 2**13, 2**12, 2**16


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Cosine distances that one threshold must separate, ascending.

    Attributes:
        same: `[s]`, of the same person.
        different: `[d]`, of different people.
        inclusive: True if a distance equal to the threshold joins (sigma_drm), False if not (sigma_cst).
    """

    same: np.ndarray
    different: np.ndarray
    inclusive: bool

    def threshold(self, false_link_rate: float) -> float:
        """The largest multiple of `STEP` at which at most this share of `different` joins.

        A share below `BODY` is that of the normal distribution through the median m and the quantile q of `BODY`:

            m + (q - m) z(rate) / z(BODY),   z = inverse of the standard normal distribution function

        Raises:
            ValueError: Too few distances, or no threshold above 0.
        """
        checks.check_rate(false_link_rate)
        seen = len(self.different)
        if seen < FEWEST_PAIRS:
            raise ValueError(
                f"{seen:,} distances between tracklets that share a frame, expected at least {FEWEST_PAIRS}: "
                "thresholds cannot be calibrated on these; give more rows, or set sigma_cst and sigma_drm"
            )
        body = self.different[int(seen * max(false_link_rate, BODY))]  # the first that must not join
        if false_link_rate < BODY:
            middle = np.median(self.different)
            body = middle + (body - middle) * norm.ppf(false_link_rate) / norm.ppf(BODY)
        steps = np.floor(body / STEP)
        sigma = round(float(STEP * (steps if steps * STEP < body else steps - 1)), 4)
        if sigma <= 0:
            raise ValueError(
                f"no threshold above 0 joins at most {false_link_rate:g} of the distances between tracklets that "
                "share a frame: the features do not separate people (center and whiten them, see cion_jax.features."
                "adaptation), the tracker boxed people twice, or features and table are not row for row"
            )
        return sigma

    def at(self, sigma: float) -> dict[str, float]:
        """Counts and shares that join at a threshold, and an upper bound on the share of `different`.

        The bound is Clopper and Pearson's (Biometrika 26, 1934), one-sided, at `CONFIDENCE`. It assumes independent
        distances; those of one video are correlated, so the true share may exceed it somewhat.
        """
        side = "right" if self.inclusive else "left"
        same, different = (int(np.searchsorted(one, sigma, side)) for one in (self.same, self.different))
        seen = len(self.different)
        bound = float(betaincinv(different + 1, seen - different, CONFIDENCE)) if different < seen else 1.0
        return {
            "sigma": sigma,
            "same_joined": same,
            "same_share": same / len(self.same),
            "different_joined": different,
            "different_share": different / seen,
            "different_share_below": bound,
        }


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Evidence for both thresholds.

    Attributes:
        sigma_cst, sigma_drm: The distances that each must separate.
        tracklets, pairs: Numbers of tracklets and co-visible pairs of tracklets that they are from.
        groups: Number of tracklets of the crawl.
        neighbours: Mean number of other tracklets in the video of a tracklet, which Eq. 5 compares it with.
    """

    sigma_cst: Evidence
    sigma_drm: Evidence
    tracklets: int
    pairs: int
    groups: int
    neighbours: float

    def rates(self, false_links: float, half_width: int | str | None) -> dict[str, float]:
        """False-link rates per comparison at which a group gets `false_links` from all its comparisons.

        An image that Eq. 4 removed is compared with the other tracklets of its video (Eq. 5); a group with those
        `half_width` places before and after it (Eq. 7), or with all others.
        """
        if not 0 < false_links < np.inf:
            raise ValueError(f"false_links={false_links}: expected a number of links per group above 0, such as 0.1")
        reach, others = checks.reach(half_width), max(self.groups - 1, 1)
        comparisons = others if reach is None else min(2 * reach, others)
        return {
            "sigma_cst": min(false_links / max(self.neighbours, 1), 0.5),
            "sigma_drm": min(false_links / max(comparisons, 1), 0.5),
        }

    def propose(self, false_links: float, half_width: int | str | None) -> dict[str, float]:
        """The largest thresholds at these rates; sigma_cst is at most what removes `LEAVING` of the images.

        Raises:
            ValueError: What `Evidence.threshold` and `rates` raise.
        """
        sigmas = {
            name: getattr(self, name).threshold(rate) for name, rate in self.rates(false_links, half_width).items()
        }
        leaving = round(float(np.quantile(self.sigma_cst.same, 1 - LEAVING)), 4)
        return sigmas | {"sigma_cst": min(sigmas["sigma_cst"], max(leaving, STEP))}


def calibrate(
    features: RowArray,
    videos: np.ndarray,
    tracklets: np.ndarray,
    frames: np.ndarray,
    *,
    progress: Progress = silent,
) -> Calibration:
    """Measures the distances that the thresholds of `correlate` must separate; arguments as there.

    Up to `TRACKLETS` tracklets and up to `PAIRS` of their co-visible pairs are drawn with a fixed seed. Only their
    images are read from `features`, a block at a time.

    Raises:
        ValueError: Invalid input, or no tracklet is long enough to be split into halves.
    """
    checks.check_array(features)
    checks.check_tracklets(videos, tracklets, len(features))
    checks.check_frames(frames, len(features), needed=True)
    random = np.random.default_rng(0)
    tracklets, frame_ids = numbered(tracklets), covisible.number_frames(videos, frames)
    drawn = np.sort(random.permutation(tracklets.max() + 1)[:TRACKLETS])
    if np.bincount(tracklets)[drawn].max() < FEWEST_HALVED:
        raise ValueError(f"no tracklet has {FEWEST_HALVED} images; calibration compares the halves of tracklets")
    candidates = _covisible_pairs(frame_ids, tracklets, drawn, random)
    candidates = candidates[np.sort(random.permutation(len(candidates))[:PAIRS])]
    sample = _Sample(features, tracklets, frames, np.union1d(drawn, tracklets[candidates]))
    with progress("calibration", len(sample.rows) + 2 * len(candidates), "images") as advance:
        sample.read(advance)
        pairs = _covisible_pairs(np.where(sample.typical(), frame_ids, -1), tracklets, drawn, random)
        pairs = pairs[_both_in(tracklets[pairs], tracklets[candidates])]
        image_distances, centroid_distances = sample.between(pairs, advance)
        advance(2 * (len(candidates) - len(pairs)))  # pairs without typical images of both in one frame
    others, halves = sample.within(drawn)
    return Calibration(
        Evidence(np.sort(others), np.sort(image_distances), inclusive=False),
        Evidence(np.sort(halves), np.sort(centroid_distances), inclusive=True),
        tracklets=len(drawn),
        pairs=len(pairs),
        groups=int(tracklets.max()) + 1,
        neighbours=_neighbours(videos, tracklets),
    )


def _neighbours(videos: np.ndarray, tracklets: np.ndarray) -> float:
    """Mean over tracklets of the number of other tracklets in their video."""
    counts = np.bincount(numbered(videos)[np.unique(tracklets, return_index=True)[1]])
    return float((counts * (counts - 1)).sum() / counts.sum())


def _covisible_pairs(
    frame_ids: np.ndarray, tracklets: np.ndarray, drawn: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Pairs of rows `[p, 2]` in one frame, one for each two tracklets that share a frame, one of them in `drawn`.

    Of the frames that two tracklets share, one is taken at random. Rows with -1 in `frame_ids` `[n]` are left out.
    """
    order = np.argsort(frame_ids, kind="stable")
    order = order[np.count_nonzero(frame_ids < 0) :]
    rows = random.permutation(np.flatnonzero(np.isin(tracklets, drawn) & (frame_ids >= 0)))
    count, pairs, keys = int(tracklets.max()) + 1, np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    for start in range(0, len(rows), _LOOKUPS_AT_ONCE):
        left, right = _beside(rows[start : start + _LOOKUPS_AT_ONCE], frame_ids, order)
        a, b = tracklets[left], tracklets[right]
        different = a != b
        pairs = np.concatenate([pairs, np.stack([left, right], 1)[different]])
        keys = np.concatenate([keys, (np.minimum(a, b) * count + np.maximum(a, b))[different]])
        keys, first = np.unique(keys, return_index=True)  # rows come in random order: the first is a random one
        pairs = pairs[first]
    return pairs


def _beside(rows: np.ndarray, frame_ids: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of each of the `rows` with every row of its frame; `order` lists the rows by frame id."""
    sorted_ids = frame_ids[order]
    first, last = (np.searchsorted(sorted_ids, frame_ids[rows], side) for side in ("left", "right"))
    counts = last - first
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(rows, counts), order[np.repeat(first, counts) + offsets]


def _both_in(pairs: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mask `[p]` of the `pairs` `[p, 2]` that are, in either order, among `others` `[q, 2]`."""
    pairs, others = np.sort(pairs, axis=1), np.sort(others, axis=1)
    count = max(pairs.max(initial=0), others.max(initial=0)) + 1
    return np.isin(pairs @ [count, 1], others @ [count, 1])


class _Sample:
    """The images of some tracklets, in float64, and the tracklets' centroids once they have been read."""

    def __init__(self, features: RowArray, tracklets: np.ndarray, frames: np.ndarray, present: np.ndarray):
        rows = np.flatnonzero(np.isin(tracklets, present))
        self.rows = rows[np.lexsort((frames[rows], tracklets[rows]))]  # by tracklet, then in time
        self.features, self.present = features, present
        place = np.full(tracklets.max() + 1, -1)
        place[present] = np.arange(len(present))
        self.tracklet = place[tracklets]
        self.counts = np.bincount(self.tracklet[self.rows])
        self.centroids = np.zeros((len(present), features.shape[1]), np.float32)
        self.deviations = np.zeros(len(self.rows))
        self.halves = np.zeros(len(present))

    def read(self, advance: Callable[[int], None]) -> None:
        """Sets `centroids`, `deviations` of images from the others of their tracklet, and the distance of `halves`."""
        ends = np.cumsum(self.counts)
        for block in self._blocks():
            counts = self.counts[block]
            inside = slice(ends[block.start] - counts[0], ends[block.stop - 1])
            images, starts = self._images(self.rows[inside]), np.cumsum(counts) - counts
            sums = np.add.reduceat(images, starts)
            self.centroids[block] = directions(sums)
            self.deviations[inside] = _to_others(images, np.repeat(sums, counts, axis=0))
            long = counts >= FEWEST_HALVED
            self.halves[block][long] = _between_halves(images, starts[long], counts[long], sums[long])
            advance(len(images))

    def typical(self) -> np.ndarray:
        """Mask `[n]` of the images in the nearer half of their tracklet; False for images that were not read."""
        own = self.tracklet[self.rows]
        ascending = self.deviations[np.lexsort((self.deviations, own))]
        median = ascending[np.cumsum(self.counts) - self.counts + (self.counts - 1) // 2]
        typical = np.zeros(len(self.features), bool)
        typical[self.rows] = self.deviations <= median[own] + TIE
        return typical

    def within(self, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances inside the tracklets `drawn`: of images to the mean of the others, and between halves."""
        wanted = np.isin(self.present, drawn)
        several = (wanted & (self.counts > 1))[self.tracklet[self.rows]]
        return self.deviations[several], self.halves[wanted & (self.counts >= FEWEST_HALVED)]

    def between(self, pairs: np.ndarray, advance: Callable[[int], None]) -> tuple[np.ndarray, np.ndarray]:
        """Distances between the tracklets of `pairs` `[p, 2]` of rows.

        Returns:
            Of either image to the other's centroid, `[2 p]`, and between the centroids, `[p]`.
        """
        image_distances, centroid_distances = [np.zeros(0)], [np.zeros(0)]
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            block = pairs[start : start + _PAIRS_AT_ONCE]
            left, right = (self.centroids[self.tracklet[side]].astype(np.float64) for side in block.T)
            for images, others in zip(block.T, (right, left), strict=True):
                image_distances.append(distance(np.einsum("pd,pd->p", self._images(images), others)))
            centroid_distances.append(distance(np.einsum("pd,pd->p", left, right)))
            advance(block.size)
        return np.concatenate(image_distances), np.concatenate(centroid_distances)

    def _blocks(self) -> Iterator[slice]:
        """Slices of tracklets, up to `_ROWS_AT_ONCE` images each."""
        ends, first = np.cumsum(self.counts), 0
        while first < len(ends):
            full = ends[first] - self.counts[first] + _ROWS_AT_ONCE
            last = max(first + 1, int(np.searchsorted(ends, full, side="right")))
            yield slice(first, last)
            first = last

    def _images(self, rows: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            images = exact_unit(self.features[rows])
        checks.check_directions(images, rows, len(self.features))
        return images


def _to_others(images: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Distances `[m]` of unit `images` `[m, d]` to the mean of the others in `sums` `[m, d]`; 1 if none are."""
    others = sums - images
    return distance(np.einsum("md,md->m", images, others) / np.maximum(np.linalg.norm(others, axis=1), SHORTEST_SUM))


def _between_halves(images: np.ndarray, starts: np.ndarray, counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Distances `[k]` of the centroids of both halves of the `counts` images from `starts` on, which add to `sums`."""
    cuts = np.stack([starts, starts + counts // 2], 1).reshape(-1)
    first = np.add.reduceat(images, cuts)[::2]
    return distance(np.einsum("kd,kd->k", directions(first), directions(sums - first)))
