"""Correlations that grow and shrink equal runs from scratch, keep their numbers, and cost what is new times all."""

import itertools
import json

import jax
import numpy as np
import pytest

from cion_jax.correlation import correlate, correlate_to, extend_to, tracklet
from cion_jax.correlation.closure import numbered
from cion_jax.correlation.cross_video import pairs_to_compare
from cion_jax.correlation.engine import tiles
from cion_jax.correlation.growing import numbers
from cion_jax.correlation.growing.grow import grow
from cion_jax.correlation.growing.state import State, groups_of
from cion_jax.runtime.arrays import StackedArray
from cion_jax.runtime.mesh import make_mesh
from cion_jax.runtime.progress import silent
from cion_jax.samples import SampleTable, read_samples, write_samples
from tests.commands import run_command
from tests.correlation_oracle import DIM, Oracle, make_world

TOGETHER, VIDEOS = 70, 5  # worlds in one crawl, and videos of each
PAPER = {"half_width": None, "sigma_drm": 0.18, "forbid_covisible": False, "rule": "closure", "neighbors": 5}
DECIDED = 1e-7  # decisions closer than this may be wrong in the oracle itself


def track(total):
    return silent("", total, "")


def correlated(crawl, rows, **settings):
    return correlate(*(column[rows] for column in crawl), **settings)


def grown(crawl, old, removed, added, half_width, **settings):
    """Correlates the `old` rows, then takes the rows `removed` out and adds the rows `added`; all ascending.

    Returns the rows at the end, the earlier identities of those that were there before, and the result.
    """
    before = correlated(crawl, old, half_width=half_width, **settings)
    groups = groups_of(correlated(crawl, added, **settings, levels=2).levels[2]) if len(added) else None
    rows = np.concatenate([np.setdiff1d(old, removed), added])
    gone = np.isin(old, removed)
    chosen = PAPER | {"half_width": half_width, "sigma_drm": settings["sigma_drm"]}
    end = grow(State.after(before).without(gone), groups, crawl[0][rows], None, chosen, track)
    return rows, before.identities[~gone], end


def side_by_side(seed, spread):
    """Worlds in dimensions of their own, at distance 1 from each other: `(features, videos, tracklets)`, world by row.

    Many small worlds in one crawl are compiled for only once.
    """
    worlds = [
        make_world(TOGETHER * seed + i, 4 + 5 * (i % 5), VIDEOS, 1 + i % 3, spread=spread) for i in range(TOGETHER)
    ]
    world = np.repeat(np.arange(TOGETHER), [len(one[0]) for one in worlds])
    features = np.zeros((len(world), DIM * TOGETHER), np.float32)
    for index, (own, _, _) in enumerate(worlds):
        features[world == index, DIM * index : DIM * (index + 1)] = own
    videos, tracklets = (np.concatenate([one[column] for one in worlds]) + 100 * world for column in (1, 2))
    return (features, videos, tracklets), world


@pytest.mark.slow
def test_hundreds_of_worlds_grown_and_shrunk_match_the_oracle(monkeypatch):
    for module in (tiles, tracklet):  # for one device programs compile faster than for eight
        monkeypatch.setattr(module, "own_devices", lambda: make_mesh(jax.local_devices()[:1]))
    compared, merged, split = 0, 0, 0
    for seed, (spread, sigma) in enumerate([(0.3, 0.1), (0.6, 0.3), (0.6, 0.5), (0.9, 0.3), (0.9, 0.5)]):
        crawl, world = side_by_side(seed, spread)
        old, removed, added = (np.flatnonzero(np.isin(crawl[1] % 100, which)) for which in ([0, 1, 2], [1], [3, 4]))
        rows, before, end = grown(crawl, old, removed, added, None, sigma_cst=sigma, sigma_drm=sigma)
        for index in range(TOGETHER):
            own = world[rows] == index
            oracle = Oracle(*(column[rows[own]] for column in crawl), sigma, sigma, None)
            if oracle.margin > DECIDED:
                np.testing.assert_array_equal(numbered(end.identities[own]), oracle.identities[3])
                compared += 1
        both = np.stack([before, end.identities[: len(before)]])[:, before >= 0]
        pairs = len(np.unique(both, axis=1).T)
        split, merged = split + pairs - len(np.unique(both[0])), merged + pairs - len(np.unique(both[1]))
    assert compared > 300 and merged > 10 and split > 5, (compared, merged, split)


@pytest.mark.parametrize("half_width", [0, 1, 2, 5, 1000])
def test_a_sliding_range_grows_and_closes_over_gaps_as_from_scratch(half_width):
    settings = {"sigma_cst": 0.3, "sigma_drm": 0.25}
    for seed in range(4):
        features, videos, tracklets = make_world(seed, images=150, videos=10, tracklets=3, people=5)
        order = np.argsort(videos, kind="stable")
        crawl = features[order], videos[order], tracklets[order]
        old, removed, added = (np.flatnonzero(np.isin(crawl[1], which)) for which in (range(7), [1, 4, 5], [7, 8, 9]))
        rows, _, end = grown(crawl, old, removed, added, half_width, **settings)
        expected = correlated(crawl, rows, half_width=half_width, **settings)
        np.testing.assert_array_equal(end.identities, expected.identities)
        again = State.after(expected)
        np.testing.assert_array_equal(end.state.links, again.links)
        np.testing.assert_array_equal(end.state.groups.assigned, again.groups.assigned)


def test_pairs_to_compare_are_those_within_reach_now_that_were_not_before():
    random = np.random.default_rng(0)
    for _ in range(200):
        places = np.flatnonzero(random.random(random.integers(1, 20)) < 0.7)
        groups, reach = len(places) + random.integers(0, 6), [None, 0, 1, 3, 30][random.integers(5)]
        rows, windows = pairs_to_compare(places, groups, reach)
        found = {(j, i) for i, low, high in zip(rows, windows.low, windows.high) for j in range(low, high)}
        far = np.inf if reach is None else reach
        expected = {
            (j, i)
            for j, i in itertools.combinations(range(groups), 2)
            if i - j <= far and not (i < len(places) and places[i] - places[j] <= far)
        }
        assert found == expected


@pytest.mark.parametrize(
    "chosen",
    [{"forbid_covisible": True}, {"rule": "constrained"}, {"rule": "mutual", "neighbors": 2}, {"rule": "hdbscan"}],
)
def test_every_rule_grows_as_from_scratch(chosen):
    features, videos, tracklets = make_world(5, images=400, videos=8, tracklets=8, people=9)
    order = np.argsort(videos, kind="stable")
    crawl, frames = (features[order], videos[order], tracklets[order]), np.random.default_rng(0).integers(0, 40, 400)
    settings = {"sigma_drm": 0.3, "half_width": None, **chosen}
    old, added = np.flatnonzero(crawl[1] < 5), np.flatnonzero(crawl[1] >= 5)

    def run(rows, **more):
        return correlated(crawl, rows, **settings | {"frames": frames[rows]} | more)

    groups, ids = groups_of(run(added, levels=2).levels[2]), crawl[1] * 100 + frames
    end, plain = (
        grow(State.after(run(old)), groups, crawl[0], ids, PAPER | {"sigma_drm": 0.3} | rule, track)
        for rule in (chosen, {})
    )
    np.testing.assert_array_equal(end.identities, run(np.arange(400)).identities)
    assert (end.identities != plain.identities).any() or len(end.state.links) < len(plain.state.links)


# Numbers


def test_numbers_stay_and_merged_identities_keep_the_lowest():
    earlier = np.array([7, 7, 7, 3, 3, 9, -1, -1])
    #      7 and 3 are one now; 9 stays; a new one; a discarded image
    now = np.array([0, 0, 0, 0, 0, 1, 2, -1])
    assert numbers.carry_over(now, earlier, 12).tolist() == [3, 3, 3, 3, 3, 9, 12, -1]
    #      7 falls apart: most of its images keep the number
    now = np.array([0, 1, 1, 2, 2, 3, 4, 4])
    found = numbers.carry_over(now, earlier, 12)
    assert found.tolist() == [12, 7, 7, 3, 3, 9, 13, 13]
    assert numbers.changes(found, earlier) == [(7, 12, 1)]
    assert numbers.changes(np.array([3, -1, -1]), np.array([5, 5, 6])) == [(5, None, 1), (5, 3, 1), (6, None, 1)]


def test_carried_numbers_name_the_same_groups_on_random_identities():
    random = np.random.default_rng(1)
    for _ in range(100):
        earlier, now = random.integers(-1, 6, 30), numbered(random.integers(-1, 7, 30))
        found = numbers.carry_over(now, earlier, 6)
        np.testing.assert_array_equal(numbered(found), now)
        assert set(found[found < 6].tolist()) <= set(earlier.tolist()) | {-1}
        if (earlier >= 0).all():
            np.testing.assert_array_equal(numbers.carry_over(numbered(earlier), earlier, 6), earlier)


# On disk


@pytest.fixture
def crawl(tmp_path):
    """Videos a to d with a description of their features, in two halves: a, b and c, d."""
    features, videos, tracklets = make_world(3, images=200, videos=4, tracklets=6, people=8)
    order = np.argsort(videos, kind="stable")
    features, videos, tracklets = features[order].astype(np.float16), videos[order], tracklets[order]
    table = SampleTable.from_columns(
        file_path=[f"{row}.jpg" for row in range(200)],
        video=[f"{'abcd'[video]}" for video in videos],
        tracklet=tracklets,
        frame=np.arange(200) % 37,
    )
    for name, rows in (("old", videos < 2), ("new", videos >= 2), ("all", videos >= 0), ("bcd", videos > 0)):
        write_samples(table.select(rows), tmp_path / f"{name}.parquet")
        np.save(tmp_path / f"{name}.npy", features[rows])
        (tmp_path / f"{name}.json").write_text(json.dumps({"model": "m", "weights_sha256": "abc", "size": [64, 32]}))
    return tmp_path


def inputs(folder, name):
    return {"samples": folder / f"{name}.parquet", "features_path": folder / f"{name}.npy"}


def identities(folder):
    return read_samples(folder / "identities.parquet")["identity"]


def test_growing_on_disk_and_removing_a_video_equal_runs_from_scratch(crawl):
    correlate_to(crawl / "A", **inputs(crawl, "old"), half_width="all")
    report = extend_to(crawl / "B", crawl / "A", **inputs(crawl, "new"))
    scratch = correlate_to(crawl / "S", **inputs(crawl, "all"), half_width="all")
    np.testing.assert_array_equal(numbered(identities(crawl / "B")), identities(crawl / "S"))
    assert report["levels"][-1]["identities"] == scratch["levels"][-1]["identities"]
    assert report["levels"][-1]["covisible_identities"] == scratch["levels"][-1]["covisible_identities"]

    before = identities(crawl / "A")
    listed = json.loads((crawl / "B/changes.json").read_text())
    renamed = {change["before"]: change["after"] for change in listed}
    assert all(after < number for number, after in renamed.items())
    np.testing.assert_array_equal(
        identities(crawl / "B")[: len(before)], [renamed.get(number, number) for number in before.tolist()]
    )

    report = extend_to(crawl / "C", crawl / "B", remove=["a"])
    correlate_to(crawl / "T", **inputs(crawl, "bcd"), half_width="all")
    np.testing.assert_array_equal(numbered(identities(crawl / "C")), identities(crawl / "T"))
    table = read_samples(crawl / "C/identities.parquet")
    assert "a" not in set(table["video"]) and "train them again" in report["grown"]["train_again"]
    # Nothing of the video is left in the folder: its features are not, and the arrays are those of a run without it.
    stored = [np.load(path) for path in sorted((crawl / "C/index").glob("features-*.npy"))]
    np.testing.assert_array_equal(np.concatenate([*stored, np.load(crawl / "new.npy")]), np.load(crawl / "bcd.npy"))
    for name in ("groups.npy", "links.npy", "centroids.npy"):
        np.testing.assert_allclose(np.load(crawl / "C/index" / name), np.load(crawl / "T/index" / name), rtol=1e-5)

    # The features that C keeps for itself outlive it.
    report = extend_to(crawl / "D", crawl / "C", remove=["d"])
    (crawl / "C/index/features-0.npy").unlink()
    extend_to(crawl / "E", crawl / "D", remove=["c"])
    assert set(read_samples(crawl / "E/identities.parquet")["video"]) == {"b"}


def test_a_removed_number_is_not_given_to_another(crawl):
    correlate_to(crawl / "A", **inputs(crawl, "old"), half_width="all")
    extend_to(crawl / "B", crawl / "A", remove=["b"])
    extend_to(crawl / "C", crawl / "B", **inputs(crawl, "new"))
    highest = identities(crawl / "A").max()
    new = identities(crawl / "C")[len(identities(crawl / "B")) :]
    assert set(new[new <= highest].tolist()) <= set(identities(crawl / "B").tolist()) | {-1}
    assert new.max() > highest


def test_replacing_a_video_is_one_call(crawl):
    correlate_to(crawl / "A", **inputs(crawl, "all"), half_width="all")
    extend_to(crawl / "B", crawl / "A", **inputs(crawl, "new"), remove=["c", "d"])
    np.testing.assert_array_equal(numbered(identities(crawl / "B")), identities(crawl / "A"))
    gone = [
        change["before"] for change in json.loads((crawl / "B/changes.json").read_text()) if change["after"] is None
    ]
    only_there = set(identities(crawl / "A").tolist()) - set(identities(crawl / "B").tolist())
    assert only_there and only_there <= set(gone)  # those of these videos alone have new numbers


def test_added_images_cost_new_times_all(monkeypatch):
    """By the area of the tiles that are computed, padding included."""
    random, area = np.random.default_rng(0), []
    cut = tiles.cut

    def counted(*arguments):
        cuts = cut(*arguments)
        area.append(int((cuts.rows.astype(int) * cuts.columns).sum()))
        return cuts

    features = random.normal(size=(4100, 64)).astype(np.float32)
    crawl = features, np.arange(4100), np.arange(4100)  # each image a video of its own: Eq. 4-6 compare nothing
    settings = {"sigma_cst": 0.2, "sigma_drm": 0.18}
    earlier = State.after(correlated(crawl, np.arange(4000), half_width=None, **settings))
    added = groups_of(correlated(crawl, np.arange(4000, 4100), levels=2, **settings).levels[2])
    monkeypatch.setattr(tiles, "cut", counted)
    end = grow(earlier, added, features, None, PAPER, track)
    assert end.compared == 100 * 4000 + 100 * 99 // 2
    assert end.compared <= sum(area) <= 1.1 * end.compared
    grow(earlier.without(np.arange(4000) < 50), None, features[50:4000], None, PAPER, track)
    assert len(area) == 1


# Bad input


def refused(crawl, message, old="A", **settings):
    with pytest.raises(ValueError, match=message):
        extend_to(crawl / "X", crawl / old, **settings)
    assert not (crawl / "X").exists()


def test_input_that_does_not_fit_is_refused_and_nothing_is_written(crawl):
    correlate_to(crawl / "A", **inputs(crawl, "old"), half_width="all")
    new = inputs(crawl, "new")
    refused(crawl, "no video of that name", remove=["A"])
    refused(crawl, "no image would be left", remove=["a", "b"])
    refused(crawl, r"video in .*A already: b \(1 in all\); a video is added whole", **inputs(crawl, "bcd"))
    refused(crawl, "no index; give the --out of", old="nowhere", **new)
    with pytest.raises(ValueError, match="give another --out"):
        extend_to(crawl / "A", crawl / "A", **new)

    table = read_samples(new["samples"])
    write_samples(table.with_columns(file_path=[f"{row}.jpg" for row in range(len(table))]), new["samples"])
    refused(crawl, r"file_path in .*A already: 0\.jpg, .* leave these images out", **new)
    write_samples(table.with_columns(video=np.arange(len(table)) % 2), new["samples"])
    refused(crawl, "columns of different types", **new)
    write_samples(table.with_columns(extra=np.zeros(len(table))), new["samples"])
    refused(crawl, "only one has extra", **new)
    write_samples(table, new["samples"])

    (crawl / "new.json").write_text(json.dumps({"model": "m", "weights_sha256": "xyz", "size": [64, 32]}))
    refused(crawl, "another extractor than that of the correlated features: weights_sha256 xyz, expected abc", **new)
    (crawl / "new.json").write_text(json.dumps({"model": "m", "adaptation": {"centered_by": "video"}}))
    refused(crawl, "adapted features are centered and whitened by their own images", **new)
    (crawl / "new.json").unlink()
    refused(crawl, "the index's features have a description of their extractor and these have none", **new)
    features = np.load(new["features_path"])
    np.save(new["features_path"], features[:, :-1])
    refused(crawl, f"dimension {DIM - 1}, the index has {DIM}", **new)
    np.save(crawl / "old.npy", np.load(crawl / "old.npy")[::-1])
    refused(crawl, r"old\.npy: not the features that were correlated", remove=["a"])


def test_the_command_says_what_has_changed(crawl):
    correlate_to(crawl / "A", **inputs(crawl, "old"), half_width="all")
    flags = [f"--extend={crawl / 'A'}", f"--out={crawl / 'B'}", "--remove=a"]
    new = [f"--samples={crawl / 'new.parquet'}", f"--features={crawl / 'new.npy'}"]
    done = run_command("cion_jax.correlate", *flags, *new)
    assert done.returncode == 0, done.stderr
    assert "identities merged" in done.stdout and "train them again" in done.stdout
    assert set(read_samples(crawl / "B/identities.parquet")["video"]) == {"b", "c", "d"}
    done = run_command("cion_jax.correlate", *flags, "--sigma_drm=0.3")
    assert done.returncode == 2 and "--sigma_drm does not go with --extend" in done.stderr


def test_only_results_of_all_levels_can_grow(crawl):
    correlate_to(crawl / "A", **inputs(crawl, "old"), levels=2)
    refused(crawl, "ran all levels to its end", remove=["a"])


def test_stacked_arrays_are_read_as_one():
    random = np.random.default_rng(0)
    parts = [random.normal(size=(count, 3)).astype(np.float16) for count in (4, 1, 7)]
    stacked = StackedArray(parts, [None, None, np.array([1, 5, 6])])
    whole = np.concatenate([*parts[:2], parts[2][[1, 5, 6]]])
    assert (stacked.shape, stacked.dtype, len(stacked)) == (whole.shape, np.float16, 8)
    np.testing.assert_array_equal(stacked[2:7], whole[2:7])
    rows = random.integers(0, 8, (2, 5))
    np.testing.assert_array_equal(stacked[rows], whole[rows])
    with pytest.raises(ValueError, match=r"arrays of \[3, 4\] columns"):
        StackedArray([parts[0], np.zeros((2, 4))])
