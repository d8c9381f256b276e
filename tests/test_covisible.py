"""Co-visible links and identities, and the report on identities that chained."""

import itertools

import numpy as np
import pytest

from cion_jax.correlation import chaining, correlate, correlate_to, covisible
from cion_jax.samples import SampleTable, write_samples
from tests.correlation_oracle import make_world


def world_with_frames(seed=5):
    """Few frames, so that many tracklets of one video share one; some frames are unknown."""
    features, videos, tracklets = make_world(seed, images=80, videos=3, tracklets=5, people=3)
    return features, videos, tracklets, np.random.default_rng(seed).integers(-1, 30, 80)


def share_a_frame(rows, others, videos, frames):
    seen = [{(videos[row], frames[row]) for row in group if frames[row] >= 0} for group in (rows, others)]
    return bool(seen[0] & seen[1])


def test_links_between_what_one_frame_shows_twice_are_those_found_by_hand():
    _, videos, tracklets, frames = world_with_frames()
    links = np.array(list(itertools.combinations(range(15), 2)))
    assigned = np.where(np.arange(80) % 9 == 0, -1, tracklets)
    by_hand = [
        share_a_frame(np.flatnonzero(assigned == a), np.flatnonzero(assigned == b), videos, frames) for a, b in links
    ]
    assert 0 < sum(by_hand) < len(by_hand)
    np.testing.assert_array_equal(covisible.joined(covisible.number_frames(videos, frames), assigned, links), by_hand)


def test_frames_alone_change_nothing():
    features, videos, tracklets, frames = world_with_frames()
    plain = correlate(features, videos, tracklets, half_width=None)
    found = correlate(features, videos, tracklets, half_width=None, frames=frames)
    np.testing.assert_array_equal(found.identities, plain.identities)
    assert all(level.covisible is None for level in plain.levels)
    assert len(found.levels[2].covisible) == len(found.levels[2].links) > 0


def test_forbidden_links_are_left_out_and_the_others_stay():
    features, videos, tracklets, frames = world_with_frames()
    settings = {"half_width": None, "frames": frames}
    found = correlate(features, videos, tracklets, **settings, sigma_drm=0.3)
    strict = correlate(features, videos, tracklets, **settings, sigma_drm=0.3, forbid_covisible=True)
    assert found.levels[2].covisible.any()
    assert not strict.levels[2].covisible.any() and not strict.levels[3].covisible.any()
    kept = found.levels[2].links[~found.levels[2].covisible]
    np.testing.assert_array_equal(strict.levels[2].links, kept)
    assert strict.identities.max() >= found.identities.max()


def test_conflicts_are_identities_in_two_tracklets_in_one_frame():
    random, found = np.random.default_rng(0), 0
    for _ in range(20):
        videos, frames = random.integers(0, 2, 60), random.integers(-1, 12, 60)
        tracklets = 10 * videos + random.integers(0, 5, 60)
        identities = random.integers(-1, 15, 60)
        by_hand = {
            identities[a]
            for a, b in itertools.combinations(range(60), 2)
            if identities[a] == identities[b] >= 0
            and tracklets[a] != tracklets[b]
            and (videos[a], frames[a]) == (videos[b], frames[b])
            and frames[a] >= 0
        }
        assert covisible.conflicts(covisible.number_frames(videos, frames), tracklets, identities) == len(by_hand)
        found += len(by_hand)
    assert found > 10


def test_forbidding_needs_frames():
    features, videos, tracklets, frames = world_with_frames()
    with pytest.raises(ValueError, match="add a column frame"):
        correlate(features, videos, tracklets, forbid_covisible=True)
    with pytest.raises(ValueError, match="frames are float64"):
        correlate(features, videos, tracklets, frames=frames.astype(float))


def test_the_weakest_links_of_a_chain_are_named():
    # Two tight clusters of four videos each, and one link between them.
    angles = np.radians([0, 2, 4, 6, 36, 38, 40, 42])
    rows = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    largest = correlate(rows, np.arange(8), np.arange(8)).levels[3].largest
    assert [(one.row, one.images, one.groups) for one in largest] == [(0, 8, 8)]
    a, b, distance = largest[0].weakest[0]
    assert (a, b) == (3, 4) and distance == pytest.approx(1 - np.cos(np.radians(30)), abs=1e-3)
    assert all(one[2] < 0.01 for one in largest[0].weakest[1:])


def test_an_identity_that_swallows_others_is_warned_about():
    fair = np.repeat(np.arange(400), 3)
    assert chaining.chaining_warning(fair) is None
    assert chaining.chaining_warning(np.full(5, -1)) is None
    chained = np.concatenate([fair, np.full(300, 400)])
    assert "300 images, 20% of all and 100 times the median" in chaining.chaining_warning(chained)
    assert chaining.sizes(chained) == {"median": 3, "p90": 3, "p99": 3, "largest": 300}


def test_the_report_counts_covisible_identities(tmp_path):
    features, videos, tracklets, frames = world_with_frames()
    columns = {"video": videos.tolist(), "tracklet": tracklets.tolist(), "frame": np.maximum(frames, 0)}
    write_samples(
        SampleTable.from_columns(file_path=[f"{i}.jpg" for i in range(80)], **columns), tmp_path / "s.parquet"
    )
    np.save(tmp_path / "f.npy", features)
    levels = correlate_to(tmp_path / "out", tmp_path / "s.parquet", tmp_path / "f.npy")["levels"]
    assert levels[0]["covisible_identities"] == 0
    assert levels[2]["covisible_identities"] > 0 and levels[2]["covisible_links"] > 0
    assert levels[3]["largest"][0]["first_image"].endswith(".jpg") and levels[3]["images_per_identity"]["largest"] > 5
