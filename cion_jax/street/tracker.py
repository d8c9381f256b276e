"""Simulated imperfect tracker: its tracklets of the people who walk through a video.

It loses people and picks them up again under a new id (fragments), switches to another person (identity switches),
lets its box slip off a person for single crops, and tracks objects that are not people (ghosts).
"""

import dataclasses

import numpy as np

from cion_jax.street.config import StreetConfig
from cion_jax.street.randomness import Population, Stream, generator

NOBODY = -1


@dataclasses.dataclass
class Tracklet:
    """Tracklet with one entry per crop: the frame number, and the person or `NOBODY`."""

    frames: np.ndarray
    people: np.ndarray


def track_video(config: StreetConfig, video: int) -> list[Tracklet]:
    """Returns the tracklets of a video, ordered by start frame.

    The ground truth is consistent: a person has at most one crop per frame.
    """
    rng = generator(config, Population.CRAWL, Stream.PLAN, video)
    tracklets = _fragments(config, rng)
    tracklets = _switch(tracklets, config, rng)
    for tracklet in tracklets:
        tracklet.people[rng.random(len(tracklet.people)) < config.slip_rate] = NOBODY
    tracklets += _ghosts(tracklets, config, rng)
    return sorted(tracklets, key=lambda tracklet: (tracklet.frames[0], tracklet.people[0]))


def _fragments(config: StreetConfig, rng: np.random.Generator) -> list[Tracklet]:
    """Returns one tracklet per fragment of each person in the video, with gaps in between."""
    people = rng.choice(config.crawl_people, config.people_per_video, replace=False)
    ticks = [_visible_ticks(config, rng) for _ in people]
    spans = [pieces[-1][-1] + 1 for pieces in ticks]
    video_ticks = max(max(spans), int(sum(spans) / config.co_visible))
    tracklets = []
    for person, span, pieces in zip(people, spans, ticks, strict=True):
        enters = int(rng.integers(video_ticks - span + 1))
        tracklets += [Tracklet((enters + piece) * config.frame_stride, np.full(len(piece), person)) for piece in pieces]
    return tracklets


def _visible_ticks(config: StreetConfig, rng: np.random.Generator) -> list[np.ndarray]:
    """Samples one person's fragments, in ticks since entering. Each additional fragment halves the probability."""
    counts = np.arange(config.fragments[0], config.fragments[1] + 1)
    chance = 0.5 ** (counts - counts[0])
    pieces, start = [], 0
    for _ in range(int(rng.choice(counts, p=chance / chance.sum()))):
        length = int(rng.integers(config.fragment_frames[0], config.fragment_frames[1], endpoint=True))
        pieces.append(np.arange(start, start + length))
        start += length + int(rng.integers(1, 5))
    return pieces


def _switch(tracklets: list[Tracklet], config: StreetConfig, rng: np.random.Generator) -> list[Tracklet]:
    """Makes tracklets switch to another person in view, taking over the rest of that person's tracklet.

    The first person's crops after the switch are lost, as happens when two people cross.
    """
    wanted = int(rng.binomial(len(tracklets), config.switch_rate))
    touched: set[int] = set()
    for first in rng.permutation(len(tracklets)).tolist():
        if wanted == 0:
            break
        chances = _chances(tracklets, first, touched)
        if not chances:
            continue
        second, cut = chances[int(rng.integers(len(chances)))]
        one, other = tracklets[first], tracklets[second]
        keep, taken = one.frames < cut, other.frames >= cut
        tracklets[first] = Tracklet(
            np.concatenate([one.frames[keep], other.frames[taken]]),
            np.concatenate([one.people[keep], other.people[taken]]),
        )
        tracklets[second] = Tracklet(other.frames[~taken], other.people[~taken])
        touched |= {first, second}
        wanted -= 1
    return [tracklet for tracklet in tracklets if len(tracklet.frames)]


def _chances(tracklets: list[Tracklet], first: int, touched: set[int]) -> list[tuple[int, int]]:
    """Returns possible switches of tracklet `first` as (tracklet, frame) that leave no part with a single crop."""
    one = tracklets[first]
    chances = []
    for second, other in enumerate(tracklets):
        if {first, second} & touched or other.people[0] == one.people[0]:
            continue
        for cut in one.frames[2:]:
            before, after = (other.frames < cut).sum(), (other.frames >= cut).sum()
            if other.frames[0] <= cut and before != 1 and after >= 2:
                chances.append((second, int(cut)))
    return chances


def _ghosts(tracklets: list[Tracklet], config: StreetConfig, rng: np.random.Generator) -> list[Tracklet]:
    last = max(int(tracklet.frames[-1]) for tracklet in tracklets) // config.frame_stride
    ghosts = []
    for _ in range(int(rng.binomial(len(tracklets), config.ghost_rate))):
        length = int(rng.integers(config.fragment_frames[0], config.fragment_frames[1], endpoint=True))
        start = int(rng.integers(max(1, last - length)))
        ghosts.append(Tracklet((start + np.arange(length)) * config.frame_stride, np.full(length, NOBODY)))
    return ghosts
