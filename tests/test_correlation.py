"""Identity correlation against an oracle and the reference, hand-made cases with exact ties, and invariances."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cion_jax.correlation import correlate, noise, reference, tracklet
from cion_jax.correlation.closure import numbered
from cion_jax.correlation.engine import distances, padding, tiles
from cion_jax.runtime.progress import silent
from tests.correlation_oracle import DIM, WIDE, Oracle, make_world, wide_world

E1, E2, E3 = np.eye(3, dtype=np.float32)


def assert_same_levels(found, expected):
    for result, identities in zip(found.levels, expected, strict=True):
        np.testing.assert_array_equal(result.identities, identities, err_msg=f"level {result.level}")
    np.testing.assert_array_equal(found.identities, expected[-1])


def denoise(features, numbers, sigma_cst):
    return tracklet.denoise_tracklets(features, numbers, sigma_cst, lambda total: silent("", total, ""))


def identities_of(found):
    return [result.identities for result in found.levels]


# Against the oracle


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 40),
    videos=st.integers(1, 4),
    tracklets=st.integers(1, 6),
    spread=st.floats(0.1, 1.0),
    sigma_cst=st.floats(0.05, 0.6),
    sigma_drm=st.floats(0.05, 0.6),
    half_width=st.sampled_from([None, 0, 1, 2, 5, 1000]),
)
def test_random_worlds_match_the_oracle(seed, images, videos, tracklets, spread, sigma_cst, sigma_drm, half_width):
    world = make_world(seed, images, videos, tracklets, spread=spread)
    oracle = Oracle(*world, sigma_cst, sigma_drm, half_width)
    assume(oracle.margin > WIDE)
    found = correlate(*world, sigma_cst=sigma_cst, sigma_drm=sigma_drm, half_width=half_width)
    assert_same_levels(found, oracle.identities)
    assert_same_levels(found, reference.correlate(*world, sigma_cst, sigma_drm, half_width))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    sigma_cst=st.sampled_from([0.2, 1.0, 1.2]),
    sigma_drm=st.sampled_from([0.0, 0.18, 1.0]),
    half_width=st.sampled_from([None, 1, 3]),
)
def test_exact_ties_match_the_reference(seed, sigma_cst, sigma_drm, half_width):
    """Signed one-hot features: many equal distances, some equal to a threshold, and features that cancel out."""
    random = np.random.default_rng(seed)
    features = np.eye(3, dtype=np.float32)[random.integers(0, 3, 24)] * random.choice([1, 1, 1, -1], (24, 1))
    videos = random.integers(0, 2, 24)
    tracklets = 3 * videos + random.integers(0, 3, 24)
    found = correlate(
        features.astype(np.float32), videos, tracklets, sigma_cst=sigma_cst, sigma_drm=sigma_drm, half_width=half_width
    )
    expected = reference.correlate(features, videos, tracklets, sigma_cst, sigma_drm, half_width)
    assert_same_levels(found, expected)
    for level in expected:
        measured = noise(features.astype(np.float32), level, sigma_cst=sigma_cst, sigma_drm=sigma_drm)
        parts = measured.total, measured.consistency, measured.discrimination
        assert parts == pytest.approx(reference.noise(features, level, sigma_cst, sigma_drm), rel=1e-12)


@pytest.mark.parametrize("videos, tracklets", [(1, 1), (1, 8), (8, 1)])
def test_degenerate_layouts_match_the_oracle(videos, tracklets):
    world, oracle = wide_world(7, images=30, videos=videos, tracklets=tracklets)
    assert_same_levels(correlate(*world, half_width="all"), oracle.identities)


def test_without_excluded_images_nothing_changes():
    world, oracle = wide_world(3, spread=0.0, people=1)
    assert (oracle.identities[1] >= 0).all()
    assert_same_levels(correlate(*world), oracle.identities)


def test_long_tracklet_with_many_removals_does_not_drift():
    """2,300 images, a third of which are removed, against float64 sums recomputed for each removal."""
    random = np.random.default_rng(5)
    features = random.normal(size=(2300, DIM)) * 0.35
    features[:, 0] += 1
    features[random.random(2300) < 0.3, 1] += 1.5
    features = features.astype(np.float32)
    x = features.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    kept, margin = np.ones(len(x), bool), np.inf
    while True:
        others = x[kept].sum(0) - x
        away = np.where(kept, 1 - (x * others).sum(1) / np.linalg.norm(others, axis=1), -1)
        second, largest = np.sort(away)[-2:]
        margin = min(margin, abs(largest - 0.2))
        if largest < 0.2:
            break
        margin = min(margin, largest - second) if largest > second else margin
        kept[np.argmax(away)] = False
    assert 600 < (~kept).sum() < 1700
    found, sums = denoise(features, np.zeros(2300, int), 0.2)
    # Removals closer than the float32 rounding may swap their order, so a few images may differ at the end.
    assert (found != kept).sum() <= (2 if margin < WIDE else 0)
    np.testing.assert_allclose(sums[0], x[found].sum(0), rtol=1e-5)


# Hand-made cases: orthogonal one-hot features, whose float32 distances are exactly 0 and 1


def run(rows, videos, tracklets, **settings):
    return identities_of(correlate(np.stack(rows), np.array(videos), np.array(tracklets), **settings))


def test_removal_is_at_sigma_cst_and_beyond_and_reassignment_strictly_below():
    rows, videos, tracklets = [E1, E1, E2, E3], [0, 0, 0, 0], [0, 0, 0, 1]
    removed = run(rows, videos, tracklets, sigma_cst=1.0, sigma_drm=0.5)
    assert [level.tolist() for level in removed[1:3]] == [[0, 0, -1, 1], [0, 0, -1, 1]]
    kept = run(rows, videos, tracklets, sigma_cst=1.001, sigma_drm=0.5)
    assert kept[1].tolist() == [0, 0, 0, 1]


def test_merging_is_up_to_and_including_sigma_drm():
    rows, videos, tracklets = [E1, E2, E3], [0, 0, 1], [0, 1, 2]
    at = run(rows, videos, tracklets, sigma_drm=1.0)
    assert [level.tolist() for level in at] == [[0, 1, 2], [0, 1, 2], [0, 0, 1], [0, 0, 0]]
    below = run(rows, videos, tracklets, sigma_drm=0.999)
    assert below[3].tolist() == [0, 1, 2]


def test_of_two_images_the_lower_row_leaves():
    assert run([E1, E2], [0, 0], [0, 0])[1].tolist() == [-1, 0]


@pytest.mark.slow
def test_ties_among_many_go_to_the_lowest_row():
    # E1 and E2 stand two to two: the first E2 (row 0) leaves, after which the other E2 is the odd one out.
    assert run([E2, E1, E1, E2], [0] * 4, [0] * 4)[1].tolist() == [-1, 0, 0, -1]
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 50)).astype(np.float32)  # no exact products: rounding must not decide
    for count in (3, 17):
        rows = np.stack([a, b] * count)
        kept, _ = denoise(rows, np.zeros(2 * count, int), 0.2)
        assert kept.tolist() == [False, True] * count


def test_the_last_two_images_are_a_tie_however_many_left_before():
    """At 768 dimensions, where float32 errors are largest, with a threshold so small that one image is left."""
    features = np.random.default_rng(3).normal(size=(20, 12, 768)) + 28 * np.eye(768)[0]
    numbers = np.repeat(np.arange(20), 12)
    kept, _ = denoise(features.reshape(240, 768).astype(np.float32), numbers, 1e-3)
    for images, found in zip(features, kept.reshape(20, 12)):
        images /= np.linalg.norm(images, axis=1, keepdims=True)
        left = list(range(12))
        while len(left) > 2:
            others = images[left].sum(0) - images[left]
            left.pop(np.argmin((images[left] * others).sum(1) / np.linalg.norm(others, axis=1)))
        assert np.flatnonzero(found).tolist() == [left[1]]


def test_an_excluded_image_that_ties_goes_to_the_earliest_tracklet_but_its_own():
    # Row 2 strays from tracklet 5; tracklets 9 and 7 are equal and fit, 9 comes first in the table.
    rows, tracklets = [E1, E1, E2, E2, E2], [5, 5, 5, 9, 7]
    assert run(rows, [0] * 5, tracklets, sigma_drm=0.0)[2].tolist() == [
        0,
        0,
        1,
        1,
        1,
    ]  # 9 and 7 are at distance 0
    apart = [E1, E1, E2, E2 + 0.1 * E3, E2 - 0.1 * E3]
    assert run(apart, [0] * 5, tracklets, sigma_drm=0.001)[2].tolist() == [0, 0, 1, 1, 2]


def test_an_excluded_image_never_leaves_its_video():
    rows, videos, tracklets = [E1, E1, E2, E2], [0, 0, 0, 1], [0, 0, 0, 1]
    assert [level.tolist() for level in run(rows, videos, tracklets)[2:]] == [[0, 0, -1, 1], [0, 0, -1, 1]]


def test_features_that_cancel_out_are_at_distance_one():
    features, identities = np.stack([E1, -E1, E1]), np.array([0, 0, 1])
    at = noise(features, identities, sigma_cst=1.0, sigma_drm=1.0)
    assert (at.consistency, at.discrimination) == (0.5, 1.0)
    assert noise(features, identities, sigma_cst=1.001, sigma_drm=0.999).total == 0
    # Seen from E2 the other two cancel out (distance 1); seen from E1, the rest is at distance 1.7.
    assert run([E1, E2, -E1], [0] * 3, [0] * 3, sigma_cst=1.8)[1].tolist() == [0, 0, 0]
    assert run([E1, E2, -E1], [0] * 3, [0] * 3, sigma_cst=1.5)[1].tolist() == [-1, 0, 0]


def test_linking_closes_transitively_at_both_levels():
    angles = np.radians([0, 30, 60, 90])  # neighbours at distance 0.134, next but one at 0.5
    rows = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    assert run(rows, [0] * 4, [0, 1, 2, 3])[2].tolist() == [0, 0, 0, 0]
    across = run(rows, [0, 1, 2, 3], [0, 1, 2, 3])
    assert [level.tolist() for level in across[2:]] == [[0, 1, 2, 3], [0, 0, 0, 0]]


def test_the_sliding_range_counts_groups_video_by_video():
    # Rows of videos 0 and 1 alternate: the range goes tracklets 0, 2 (video 0), then 1, 3 (video 1).
    rows, videos, tracklets = [E1, E1, E2, E3], [0, 1, 0, 1], [0, 1, 2, 3]
    assert run(rows, videos, tracklets, half_width=1)[3].tolist() == [0, 1, 2, 3]
    assert run(rows, videos, tracklets, half_width=2)[3].tolist() == [0, 0, 1, 2]


# Invariances


@pytest.fixture(scope="module")
def world():
    return wide_world(42, images=120, videos=3, tracklets=7)


@pytest.mark.parametrize("block, budget, picked", [(4, 1, False), pytest.param(3, 5000, True, marks=pytest.mark.slow)])
def test_batches_and_blocks_do_not_matter(world, monkeypatch, block, budget, picked):
    inputs, oracle = world
    monkeypatch.setattr(tiles, "scale", lambda: tiles.Scale(block, 2 * block, budget, 8, picked))
    monkeypatch.setattr(tracklet, "BATCH_BYTES", budget)
    assert_same_levels(correlate(*inputs, half_width=None), oracle.identities)
    _, narrow = wide_world(42, 2, images=120, videos=3, tracklets=7)
    assert_same_levels(correlate(*inputs, half_width=2), narrow.identities)


def test_products_at_once_or_one_row_at_a_time_do_not_matter(world, monkeypatch):
    inputs, oracle = world
    monkeypatch.setattr(tracklet, "SQUARE_LENGTHS", range(3, 2049))
    tracklet._program.cache_clear()
    try:
        assert_same_levels(correlate(*inputs, half_width=None), oracle.identities)
    finally:
        tracklet._program.cache_clear()


def test_no_inconsistency_is_left_after_level_one(world):
    inputs, _ = world
    found = correlate(*inputs, levels=1)
    measured = [noise(inputs[0], level.identities, sigma_cst=0.2, sigma_drm=0.18) for level in found.levels]
    assert measured[0].consistency > 0.2
    assert measured[1].consistency == 0


def test_a_range_of_zero_links_nothing_and_one_that_covers_everything_is_all(world):
    inputs, _ = world
    groups = correlate(*inputs, levels=2).identities
    np.testing.assert_array_equal(correlate(*inputs, half_width=0).identities, groups)
    everything = correlate(*inputs, half_width="all").identities
    np.testing.assert_array_equal(correlate(*inputs, half_width=groups.max()).identities, everything)
    assert everything.max() < groups.max()


def test_row_order_inside_a_tracklet_does_not_change_what_is_kept(world):
    (features, videos, tracklets), oracle = world
    random = np.random.default_rng(1)
    source = np.arange(len(features))
    for number in np.unique(tracklets):
        rows = np.flatnonzero(tracklets == number)
        source[rows] = random.permutation(rows)
    shuffled = correlate(features[source], videos, tracklets, levels=1).identities >= 0
    np.testing.assert_array_equal(shuffled, (oracle.identities[1] >= 0)[source])


def test_a_wider_sigma_drm_never_splits_a_group(world):
    inputs, _ = world
    strict, loose = (correlate(*inputs, sigma_drm=sigma, levels=2).identities for sigma in (0.01, 0.5))
    assert len(set(zip(strict, loose))) == len(set(strict)) > len(set(loose))


def test_links_join_identities_of_the_level_before(world):
    inputs, _ = world
    found = correlate(*inputs)
    for before, after in zip(found.levels[1:], found.levels[2:]):
        name = {old: new for old, new in zip(before.identities, after.identities) if old >= 0}
        assert len(after.links) > 0
        assert all(name[a] == name[b] and a != b for a, b in after.links)
        merged = before.identities.max() - after.identities.max()
        assert merged <= len(after.links)
    assert len(found.levels[0].links) == len(found.levels[1].links) == 0


def test_half_precision_storage_is_the_same_as_its_values():
    (features, videos, tracklets), _ = wide_world(2, images=25)
    half = features.astype(np.float16)
    stored = correlate(half, videos, tracklets)
    assert_same_levels(stored, identities_of(correlate(half.astype(np.float32), videos, tracklets)))


def test_levels_end_at_the_requested_one_and_are_announced(world):
    inputs, oracle = world
    seen = []
    found = correlate(*inputs, half_width=None, levels=1, on_level=seen.append)
    assert [result.level for result in seen] == [0, 1]
    assert seen == list(found.levels)
    assert_same_levels(found, oracle.identities[:2])


@pytest.mark.parametrize("seed", range(20))
def test_sums_are_merged_in_their_own_memory(monkeypatch, seed):
    """Blocks of a few rows, so that groups reach over several."""
    random = np.random.default_rng(seed)
    monkeypatch.setattr(distances, "_BLOCK_BYTES", int(random.integers(16, 200)))
    rows = random.standard_normal((40, 4)).astype(np.float32)
    group = numbered(random.integers(0, 25, 40))  # by lowest member
    expected = np.zeros((group.max() + 1, 4))
    np.add.at(expected, group, rows.astype(np.float64))
    found = distances.merge_rows(rows, group)
    assert np.shares_memory(found, rows)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_padding_waste_is_bounded_and_no_group_is_lost():
    lengths = np.random.default_rng(0).integers(0, 700, 2000)
    batches = list(padding.padded_batches(lengths, row_bytes=100, square_bytes=4, budget=10**7))
    assert sorted(row for _, batch in batches for row in batch) == np.flatnonzero(lengths).tolist()
    widths = [width for width, _ in batches]
    for width, batch in batches:
        assert len(batch) * (100 * width + 4 * width**2) <= 10**7
        assert (lengths[batch] <= width).all()
        if widths.count(width) > 1:  # what fits into one batch is padded to one width
            assert ((lengths[batch] / width) ** 2 >= 1 - padding.MOST_WASTE).all()
    assert len(set(widths)) < len(widths) / 2, "no width fills a batch"


def test_little_data_makes_one_batch():
    lengths = np.array([1, 30, 0, 7])
    assert [width for width, _ in padding.padded_batches(lengths, 100, 4, 10**6)] == [32]
    assert [width for width, _ in padding.padded_batches(lengths, 100, 4, 10**6, widest=30)] == [30]
    assert [width for width, _ in padding.padded_batches(lengths, 100, 4, 8000)] == [7, 32]
    assert list(padding.padded_batches(np.zeros(3, int), 100, 4, 7000)) == []


# Errors


def small():
    return np.eye(4, DIM, dtype=np.float32), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_zero_rows_are_named(value):
    features, videos, tracklets = small()
    features[[1, 3]] = value
    with pytest.raises(ValueError, match=r"2 of 4 rows .* rows 1, 3 "):
        correlate(features, videos, tracklets)
    with pytest.raises(ValueError, match=r"rows 1, 3 "):
        noise(features, tracklets, sigma_cst=0.2, sigma_drm=0.18)


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"sigma_cst": 2.5}, "sigma_cst=2.5"),
        ({"sigma_drm": -0.1}, "sigma_drm=-0.1"),
        ({"sigma_drm": float("nan")}, "sigma_drm=nan"),
        ({"half_width": -1}, "half_width=-1"),
        ({"half_width": "wide"}, "half_width='wide'"),
        ({"levels": 4}, "levels=4"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        correlate(*small(), **setting)


def test_mismatched_arrays_are_refused():
    features, videos, tracklets = small()
    with pytest.raises(ValueError, match="float64, expected float16 or float32"):
        correlate(features.astype(np.float64), videos, tracklets)
    with pytest.raises(ValueError, match="expected an array"):
        correlate(features[0], videos, tracklets)
    with pytest.raises(ValueError, match="empty"):
        correlate(features[:0], videos[:0], tracklets[:0])
    with pytest.raises(ValueError, match="videos are int64 of shape"):
        correlate(features, videos[:3], tracklets)
    with pytest.raises(ValueError, match="tracklets are float64"):
        correlate(features, videos, tracklets.astype(float))
    with pytest.raises(ValueError, match="tracklet 0 is in video 0 and, in row 2, video 1"):
        correlate(features, videos, np.zeros(4, int))
    with pytest.raises(ValueError, match="no row has an identity"):
        noise(features, np.full(4, -1), sigma_cst=0.2, sigma_drm=0.18)
