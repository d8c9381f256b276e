"""Identity correlation on thousands of small worlds against the oracle, and invariants.

Programs are compiled for shapes, and small worlds have many. So worlds are put side by side into one crawl, each into
dimensions of its own: at distance 1 from all others, which no threshold here reaches, it comes out as if it were
alone, in whatever order the range slides over it.
"""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cion_jax.correlation import correlate, levels, tracklet
from cion_jax.correlation.closure import numbered
from cion_jax.correlation.engine import tiles
from cion_jax.runtime.mesh import make_mesh
from tests.correlation_oracle import DIM, Oracle, make_world

TOGETHER = 72  # worlds in a crawl
SIZES = [1, 2, 4, 8, 16, 24]  # images of worlds, in turn
DECIDED = 1e-7  # decisions closer than this may be wrong in the oracle itself


def side_by_side(worlds):
    """One crawl of all worlds `(features, videos, tracklets)`, and the rows of each."""
    ends = np.cumsum([len(world[0]) for world in worlds])
    rows = [np.arange(end - len(world[0]), end) for world, end in zip(worlds, ends)]
    features = np.zeros((ends[-1], DIM * TOGETHER), np.float32)
    videos, tracklets = np.zeros((2, ends[-1]), int)
    for index, (own, world) in enumerate(zip(rows, worlds)):
        features[own, DIM * index : DIM * (index + 1)] = world[0]
        videos[own], tracklets[own] = world[1] + 100 * index, world[2] + 100 * index
    return features, videos, tracklets, rows


def check_crawl(seed, spread, sigmas, half_width):
    """Numbers of worlds of one crawl that were compared with the oracle, and that each step changed."""
    shapes = [(SIZES[i % 6], 1 + i % 3, 1 + i % 5) for i in range(TOGETHER)]
    worlds = [make_world(TOGETHER * seed + i, *shape, spread=spread) for i, shape in enumerate(shapes)]
    features, *layout, rows = side_by_side(worlds)
    found = correlate(features, *layout, sigma_cst=sigmas[0], sigma_drm=sigmas[1], half_width=half_width)
    exercised = np.zeros(5, int)
    for world, own in zip(worlds, rows):
        oracle = Oracle(*world, *sigmas, half_width)
        if oracle.margin > DECIDED:
            for level, expected in zip(found.levels, oracle.identities, strict=True):
                np.testing.assert_array_equal(numbered(level.identities[own]), expected, err_msg=f"{level.level}")
            _, one, two, three = oracle.identities
            changed = (one < 0).any(), (one != two).any(), two.max() < one.max(), three.max() < two.max()
            exercised += [True, *changed]
    return exercised


@pytest.mark.slow
def test_thousands_of_worlds_match_the_oracle(monkeypatch):
    for module in (tiles, tracklet):  # for one device programs compile faster than for eight
        monkeypatch.setattr(module, "own_devices", lambda: make_mesh(jax.local_devices()[:1]))
    total = np.zeros(5, int)

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(
        seed=st.integers(0, 10**6),
        spread=st.floats(0.2, 1.0),
        sigmas=st.tuples(st.floats(0.05, 0.6), st.floats(0.05, 0.6)),
        half_width=st.sampled_from([None, 0, 1, 2, 5, 1000]),
    )
    def check(**crawl):
        total[:] += check_crawl(**crawl)

    check()
    assert total[0] > 2000 and (total[1:] > 300).all(), f"the worlds do not put every step to the test: {total}"


# Invariants


@pytest.fixture(scope="module")
def world():
    return make_world(11, images=120, videos=3, tracklets=7)


def partition(identities):
    """The groups as sets of rows, regardless of their numbers."""
    return {frozenset(np.flatnonzero(identities == number).tolist()) for number in set(identities.tolist()) - {-1}}


def test_raising_sigma_drm_never_splits_a_group_of_one_level(world):
    features, _, tracklets = world
    raised = (0.02, 0.1, 0.3, 0.6)
    within = [partition(correlate(*world, sigma_drm=sigma, levels=2).identities) for sigma in raised]
    # Level 3 alone: with a video for each tracklet nothing is reassigned or merged before it.
    for half_width in (3, "all"):
        found = [correlate(features, tracklets, tracklets, sigma_drm=sigma, half_width=half_width) for sigma in raised]
        assert all(partition(one.levels[2].identities) == partition(one.levels[1].identities) for one in found)
        across = [partition(one.identities) for one in found]
        for sets in (within, across):
            for fine, coarse in itertools.pairwise(sets):
                assert all(any(part <= whole for whole in coarse) for part in fine)
            assert len(sets[-1]) < len(sets[0])


def test_the_order_of_videos_changes_nothing_but_numbers(world):
    features, videos, tracklets = world
    expected = correlate(*world, half_width="all")
    for order in ([2, 0, 1], [1, 2, 0]):
        rows = np.concatenate([np.flatnonzero(videos == video) for video in order])
        found = correlate(features[rows], videos[rows], tracklets[rows], half_width="all")
        for level, known in zip(found.levels, expected.levels):
            back = np.empty_like(level.identities)
            back[rows] = level.identities
            assert partition(back) == partition(known.identities), f"level {level.level}"
            np.testing.assert_array_equal(back < 0, known.identities < 0)


def test_names_and_feature_lengths_do_not_change_the_result(world):
    features, videos, tracklets = world
    names = np.random.default_rng(0).permutation(1000)
    lengths = 2.0 ** np.random.default_rng(1).integers(-3, 4, (len(features), 1)).astype(np.float32)
    found = correlate(features * lengths, names[videos], 7 * names[tracklets])
    for level, known in zip(found.levels, correlate(*world).levels):
        np.testing.assert_array_equal(level.identities, known.identities)


def test_one_array_of_sums_serves_every_level(monkeypatch):
    """It is a gigabyte at 10 M images."""
    denoise, sums = levels.denoise_tracklets, []

    def remembered(*arguments):
        kept, result = denoise(*arguments)
        sums.append(result)
        return kept, result

    monkeypatch.setattr(levels, "denoise_tracklets", remembered)
    found = correlate(*make_world(0, images=60, videos=3, tracklets=4))
    assert len(found.levels[2].groups.sums) < len(sums[0])
    assert np.shares_memory(found.levels[2].groups.sums, sums[0])
    assert found.levels[3].groups is None
