"""Calibration on worlds with known thresholds, and against the definitions in plain loops."""

import itertools
import json
import math
from statistics import NormalDist

import numpy as np
import pytest
from PIL import Image

from cion_jax.correlation import calibration
from cion_jax.correlation.calibration import Calibration, Evidence, calibrate
from cion_jax.reporting.calibration import calibrate_to
from cion_jax.reporting.correlation_report import print_calibration
from cion_jax.samples import SampleTable, write_samples
from tests.correlation_oracle import dist, make_world

GIVEN = {"sigma_cst": 0.2, "sigma_drm": 0.18}


def pairs_at(distances, images=4):
    """One video per distance: two people at that distance, one tracklet each, all images of a person equal."""
    cosine = 1 - np.asarray(distances)
    away = np.stack([cosine, np.sqrt(1 - cosine**2)], 1)
    people = np.stack([np.tile([1.0, 0.0], (len(away), 1)), away], 1).reshape(-1, 2)
    features = np.repeat(people, images, axis=0).astype(np.float32)
    tracklets = np.repeat(np.arange(len(people)), images)
    return features, tracklets // 2, tracklets, np.tile(np.arange(images), len(people))


def test_the_proposal_is_where_the_stated_share_of_known_distances_joins():
    distances = 0.1 + 0.0004 * np.arange(2000) + 0.00005  # between two steps of a proposal
    found = calibrate(*pairs_at(np.random.default_rng(0).permutation(distances)))
    assert (found.tracklets, found.pairs, found.groups, found.neighbours) == (4000, 2000, 4000, 1)
    for rate, most in ((0.05, 100), (0.1, 200), (0.5, 1000)):
        expected = math.floor(distances[most] * 1e4) / 1e4
        assert found.sigma_drm.threshold(rate) == found.sigma_cst.threshold(rate) == pytest.approx(expected, abs=1e-9)
        joined = found.sigma_drm.at(found.sigma_drm.threshold(rate))
        assert (joined["different_joined"], joined["same_joined"]) == (most, 4000)
        assert found.sigma_cst.at(expected)["different_joined"] == 2 * most  # either image to the other's tracklet


def test_small_shares_are_those_of_a_normal_distribution_whatever_the_tracker_did():
    distances = np.random.default_rng(0).normal(1, 0.1, 40_000)
    distances[::100] = 0.001  # a hundredth are one person twice
    evidence = Evidence(np.zeros(1), np.sort(distances), inclusive=True)
    for rate in (1e-3, 1e-5, 1e-7):
        assert evidence.threshold(rate) == pytest.approx(1 + 0.1 * NormalDist().inv_cdf(rate), abs=0.05)


def test_rates_are_per_comparison_that_will_be_made():
    found = Calibration(*[Evidence(np.zeros(1), np.ones(200), inclusive=True)] * 2, 10, 10, groups=5001, neighbours=20)
    assert found.rates(0.1, 1000) == {"sigma_cst": pytest.approx(0.1 / 20), "sigma_drm": pytest.approx(0.1 / 2000)}
    assert found.rates(0.1, "all")["sigma_drm"] == found.rates(0.1, 9999)["sigma_drm"] == pytest.approx(0.1 / 5000)
    for links in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a number of links per group above 0"):
            found.rates(links, 1000)


def test_sigma_cst_removes_few_images():
    same, different = np.linspace(0, 1, 101), np.linspace(0.99, 1.01, 200)
    found = Calibration(
        Evidence(same, different, inclusive=False), Evidence(same, different, inclusive=True), 10, 10, 10, 3
    )
    assert found.propose(0.1, 1000)["sigma_cst"] == 0.95


def test_distances_are_those_of_the_definitions():
    features, videos, tracklets = make_world(3, images=150, videos=3, tracklets=8)
    frames = np.random.default_rng(3).integers(-1, 25, 150)
    found = calibrate(features, videos, tracklets, frames)
    x = features.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    rows_of = {name: np.flatnonzero(tracklets == name) for name in np.unique(tracklets)}
    others, halves, typical = [], [], set()
    for rows in rows_of.values():
        rows = rows[np.argsort(frames[rows], kind="stable")]
        if len(rows) > 1:
            away = [dist(x[row], x[rows[rows != row]].sum(0)) for row in rows]
            others += away
            typical |= {row for row, one in zip(rows, away) if one <= sorted(away)[(len(rows) - 1) // 2]}
        else:
            typical |= set(rows)
        if len(rows) >= 4:
            half = len(rows) // 2
            halves.append(dist(x[rows[:half]].mean(0), x[rows[half:]].mean(0)))
    np.testing.assert_allclose(found.sigma_cst.same, sorted(others), atol=1e-6)
    np.testing.assert_allclose(found.sigma_drm.same, sorted(halves), atol=1e-6)

    apart, allowed = [], []
    for a, b in itertools.combinations(rows_of, 2):
        shared = [
            (i, j)
            for i, j in itertools.product(rows_of[a], rows_of[b])
            if videos[i] == videos[j] and frames[i] == frames[j] >= 0 and {i, j} <= typical
        ]
        if shared:
            ca, cb = x[rows_of[a]].mean(0), x[rows_of[b]].mean(0)
            apart.append(dist(ca, cb))
            allowed += [dist(x[i], cb) for i, _ in shared] + [dist(x[j], ca) for _, j in shared]
    assert found.pairs == len(apart) > 20
    np.testing.assert_allclose(found.sigma_drm.different, sorted(apart), atol=1e-6)
    assert len(found.sigma_cst.different) == 2 * len(apart)
    assert max(np.abs(np.asarray(allowed) - value).min() for value in found.sigma_cst.different) < 1e-6


def test_a_tracker_that_switches_does_not_lower_the_proposal():
    """In some videos the end of one tracklet shows the other's person, who had a tracklet of their own until then."""
    features, videos, tracklets, frames = pairs_at(np.full(300, 1.0), images=10)
    first = tracklets % 2 == 0
    features[(videos % 5 == 0) & first & (frames > 5)] = features[10]  # for the shorter part
    late = (videos % 5 == 1) & (frames > 3)
    features[late & first] = features[10]  # for the longer part
    frames[late & ~first] += 100
    assert dist(features[26:30].sum(0), features[30:34].sum(0)) < 1e-6 and set(frames[20:30]) & set(frames[30:34])
    found = calibrate(features, videos, tracklets, frames)
    assert found.pairs == 240  # videos of the second kind give no evidence
    assert found.sigma_cst.threshold(0.1) > 0.4 and found.sigma_drm.threshold(0.1) > 0.4


def test_the_upper_bound_has_95_percent_confidence():
    for count, seen in ((0, 50), (3, 40), (39, 40)):
        different = np.concatenate([np.full(count, 0.1), np.full(seen - count, 0.9)])
        bound = Evidence(np.zeros(1), different, inclusive=True).at(0.5)["different_share_below"]
        fewer = sum(math.comb(seen, k) * bound**k * (1 - bound) ** (seen - k) for k in range(count + 1))
        assert fewer == pytest.approx(0.05, rel=1e-6)
    assert Evidence(np.zeros(1), np.full(9, 0.1), inclusive=True).at(0.5)["different_share_below"] == 1


def test_thresholds_join_as_their_equations_do():
    values = np.array([0.1, 0.2, 0.2, 0.3])
    up_to, below = (Evidence(values, values, inclusive=inclusive) for inclusive in (True, False))
    assert (up_to.at(0.2)["same_joined"], below.at(0.2)["same_joined"]) == (3, 1)
    many = Evidence(values, np.repeat(values, 25), inclusive=True)
    assert many.threshold(0.25) == many.threshold(0.5) == 0.1999  # a quarter may join; the half at 0.2 is one too many


def test_of_many_a_sample_is_drawn_and_always_the_same(monkeypatch):
    distances = np.random.default_rng(1).uniform(0.2, 1.0, 1000)
    world = pairs_at(distances)
    monkeypatch.setattr(calibration, "TRACKLETS", 800)
    monkeypatch.setattr(calibration, "PAIRS", 500)
    first, again = calibrate(*world), calibrate(*world)
    assert (first.tracklets, first.pairs) == (800, 500)
    np.testing.assert_array_equal(first.sigma_drm.different, again.sigma_drm.different)
    assert np.abs(np.median(first.sigma_drm.different) - np.median(distances)) < 0.05
    monkeypatch.setattr(calibration, "_ROWS_AT_ONCE", 3)
    monkeypatch.setattr(calibration, "_PAIRS_AT_ONCE", 7)
    in_pieces = calibrate(*world)
    for name in ("sigma_cst", "sigma_drm"):
        for side in ("same", "different"):
            whole, cut = (getattr(getattr(one, name), side) for one in (first, in_pieces))
            np.testing.assert_allclose(cut, whole, atol=1e-12)


def test_pairs_are_found_whole_in_pieces(monkeypatch):
    random = np.random.default_rng(2)
    tracklets, frame_ids = random.integers(0, 12, 400), random.integers(-1, 60, 400)
    by_hand = {
        frozenset((a, b))
        for i, j in itertools.combinations(range(400), 2)
        if frame_ids[i] == frame_ids[j] >= 0 and (a := tracklets[i]) != (b := tracklets[j]) and (a < 5 or b < 5)
    }
    for size in (7, 2**16):
        monkeypatch.setattr(calibration, "_LOOKUPS_AT_ONCE", size)
        pairs = calibration._covisible_pairs(frame_ids, tracklets, np.arange(5), np.random.default_rng(0))
        assert (frame_ids[pairs[:, 0]] == frame_ids[pairs[:, 1]]).all()
        found = [frozenset(pair) for pair in tracklets[pairs].tolist()]
        assert len(found) == len(set(found)) and set(found) == by_hand


# Errors


def test_tables_without_pairs_to_calibrate_on_are_refused():
    features, videos, tracklets, frames = pairs_at(np.linspace(0.2, 1, 50))
    found = calibrate(features, videos, tracklets, frames)
    assert found.sigma_cst.threshold(0.1) > 0.2
    with pytest.raises(ValueError, match=r"50 distances .* expected at least 100: .* give more rows, or set sigma_cst"):
        found.sigma_drm.threshold(0.1)
    for rate in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="expected a share above 0 and below 1"):
            found.sigma_cst.threshold(rate)
    apart = calibrate(features, videos, tracklets, np.arange(len(frames)))
    with pytest.raises(ValueError, match="0 distances between tracklets that share a frame"):
        apart.sigma_drm.threshold(0.1)
    unknown = calibrate(features, videos, tracklets, np.full(len(frames), -1))
    assert unknown.pairs == 0
    with pytest.raises(ValueError, match="boxed people twice"):
        calibrate(*pairs_at(np.zeros(150))).sigma_drm.threshold(0.1)
    with pytest.raises(ValueError, match="the features do not separate people"):
        calibrate(*pairs_at(np.linspace(0.01, 0.02, 150))).sigma_drm.threshold(1e-9)
    with pytest.raises(ValueError, match="no tracklet has 4 images"):
        calibrate(*pairs_at(np.linspace(0.2, 1, 50), images=3))
    with pytest.raises(ValueError, match="frames are float64"):
        calibrate(features, videos, tracklets, frames.astype(float))
    features[[3, 9]] = np.nan, 0
    with pytest.raises(ValueError, match=r"2 of 400 rows are NaN, infinite or all zero: rows 3, 9 "):
        calibrate(features, videos, tracklets, frames)


# Command


@pytest.fixture
def paths(tmp_path):
    """200 videos of two people each, who look alike in none."""
    random = np.random.default_rng(0)
    people = random.normal(size=(400, 32))
    features = np.repeat(people, 4, axis=0) + 0.1 * random.normal(size=(1600, 32))
    tracklets = np.repeat(np.arange(400), 4)
    columns = {"video": tracklets // 2, "tracklet": tracklets, "frame": np.tile(np.arange(4), 400)}
    names = [f"{row}.jpg" for row in range(len(features))]
    write_samples(SampleTable.from_columns(file_path=names, **columns), tmp_path / "s.parquet")
    np.save(tmp_path / "f.npy", features.astype(np.float16))
    return tmp_path / "out", tmp_path / "s.parquet", tmp_path / "f.npy"


def test_calibration_is_written_and_printed(paths, capsys):
    out = paths[0]
    report = calibrate_to(*paths, given=GIVEN)
    assert json.loads((out / "calibration.json").read_text()) == report
    drm = report["sigma_drm"]
    assert drm["rate"] == pytest.approx(0.1 / 399) and 0.1 < drm["proposed"] <= report["ceiling"]
    assert [row["sigma"] for row in drm["table"]] == sorted(row["sigma"] for row in drm["table"])
    assert {row["note"] for row in drm["table"]} == {"given", "proposed", ""}
    with Image.open(out / "calibration.png") as figure:
        assert figure.size[0] > 800 and len(np.unique(np.asarray(figure.convert("L")))) > 20
    print_calibration(report)
    printed = capsys.readouterr().out
    assert f"sigma_drm: {drm['proposed']}, from a false-link rate of 0.00025" in printed
    assert "400 of 400" in printed and "…" not in printed

    with pytest.raises(ValueError, match="this calibration is complete; to replace it, set overwrite"):
        calibrate_to(*paths, given=GIVEN)
    again = calibrate_to(*paths, given=GIVEN, overwrite=True)
    assert {**again, "seconds": 0} == {**report, "seconds": 0}
    stricter = calibrate_to(*paths, false_links=1e-3, half_width=3, given=GIVEN, overwrite=True)
    assert stricter["sigma_drm"]["rate"] == pytest.approx(1e-3 / 6)


def test_calibration_that_fails_leaves_nothing(paths):
    out, samples, _ = paths
    with pytest.raises(ValueError, match="the features do not separate people"):
        calibrate_to(*paths, false_links=1e-30, given=GIVEN)
    with pytest.raises(ValueError, match="links per group above 0"):
        calibrate_to(*paths, false_links=-2, given=GIVEN)
    table = SampleTable.from_columns(file_path=[f"{i}.jpg" for i in range(1600)], video=[0] * 1600, tracklet=[0] * 1600)
    write_samples(table, samples)
    with pytest.raises(ValueError, match=r"s\.parquet: no column frame; who is in one frame"):
        calibrate_to(*paths, given=GIVEN)
    assert not out.exists()
