"""Linking rules against plain programs on random graphs, and what each is for."""

import itertools

import numpy as np
import pytest

from cion_jax.correlation import closure, correlate, rules
from tests.correlation_oracle import make_world


def random_graph(seed):
    """Count, links in order, distances (some of them equal), and pairs of a group and a frame."""
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 14))
    pairs = np.array(list(itertools.combinations(range(count), 2)))
    links = pairs[random.random(len(pairs)) < random.choice([0.2, 0.5])]
    frames = np.argwhere(random.random((count, 5)) < 0.25)
    return count, links, np.round(random.random(len(links)), 1), frames


def parts(numbers):
    return {frozenset(np.flatnonzero(numbers == number).tolist()) for number in set(numbers.tolist())}


def constrained_by_hand(count, links, distances, frames):
    """Sets of groups, joined from the shortest link on."""
    of = [{group} for group in range(count)]
    seen = [{frame for group, frame in frames.tolist() if group == own} for own in range(count)]
    for _, left, right in sorted((d, *link) for d, link in zip(distances.tolist(), links.tolist())):
        a, b = (next(part for part in of if end in part) for end in (left, right))
        frames_of = [set.union(*(seen[group] for group in part)) for part in (a, b)]
        if a is not b and not frames_of[0] & frames_of[1]:
            of = [part for part in of if part not in (a, b)] + [a | b]
    return {frozenset(part) for part in of}


def test_constrained_closure_is_that_of_sets_joined_one_by_one():
    cut = 0
    for seed in range(300):
        graph = random_graph(seed)
        found = parts(rules.constrained(*graph))
        assert found == constrained_by_hand(*graph)
        cut += found != parts(closure.groups(*graph[:2]))
    assert cut > 100


def test_the_longest_link_of_a_path_between_two_people_is_cut():
    links, distances = np.array([[0, 1], [1, 2], [2, 3]]), np.array([0.1, 0.15, 0.05])
    both_in_frame_7 = np.array([[0, 7], [3, 7]])
    assert rules.constrained(4, links, distances, both_in_frame_7).tolist() == [0, 0, 1, 1]
    assert rules.constrained(4, links, distances, both_in_frame_7[:1]).tolist() == [0, 0, 0, 0]


def test_mutual_links_are_those_of_sorted_neighbours():
    dropped = 0
    for seed in range(200):
        count, links, distances, _ = random_graph(seed)
        for neighbors in (1, 2, 4):
            near = [set() for _ in range(count)]
            for group in range(count):
                ends = [(d, sum(link) - group) for d, link in zip(distances.tolist(), links.tolist()) if group in link]
                near[group] = {other for _, other in sorted(ends)[:neighbors]}
            expected = [b in near[a] and a in near[b] for a, b in links.tolist()]
            found = rules.mutual(count, links, distances, neighbors)
            assert found.tolist() == expected
            dropped += len(links) - sum(expected)
    assert dropped > 100


def test_hdbscan_parts_two_clusters_that_one_link_chains_and_stays_inside_components():
    tight = [pair for block in (range(6), range(6, 12)) for pair in itertools.combinations(block, 2)]
    links = np.array(sorted([*tight, (5, 6), (12, 13)]))
    distances = np.where((links == [5, 6]).all(1), 0.17, 0.01 + 0.001 * (links.sum(1) % 5))
    found = rules.hdbscan(15, links, distances)
    assert found[13] == found[12] and found[14] not in found[:14]
    assert len(set(found[:6].tolist()) & set(found[6:12].tolist())) == 0
    for seed in range(50):
        count, links, distances, _ = random_graph(seed)
        inside = {frozenset(part) for part in parts(closure.groups(count, links))}
        assert all(any(part <= whole for whole in inside) for part in parts(rules.hdbscan(count, links, distances)))


@pytest.mark.parametrize("rule", rules.RULES)
def test_rules_only_refine_the_closure_of_one_level(rule):
    features, videos, _ = make_world(4, images=60, videos=6, people=4)
    alone = np.arange(60)
    frames = np.random.default_rng(0).integers(0, 8, 60)
    settings = {"half_width": None, "frames": frames, "sigma_drm": 0.25, "neighbors": 3}
    plain = correlate(features, alone, alone, **settings)  # a video each: level 2 has nothing to link
    found = correlate(features, alone, alone, **settings, rule=rule)
    assert all(any(part <= whole for whole in parts(plain.identities)) for part in parts(found.identities))
    if rule == "closure":
        np.testing.assert_array_equal(found.identities, plain.identities)
    in_videos = correlate(features, videos, alone, **settings, rule=rule)
    if rule == "constrained":
        for number in set(in_videos.identities.tolist()):
            rows = np.flatnonzero(in_videos.identities == number)
            assert len(set(zip(videos[rows].tolist(), frames[rows].tolist()))) == len(rows)


def test_rules_that_cannot_be_followed_are_refused():
    world = make_world(0)
    with pytest.raises(ValueError, match="rule='kmeans': expected one of closure, constrained, mutual, hdbscan"):
        correlate(*world, rule="kmeans")
    with pytest.raises(ValueError, match="neighbors=0"):
        correlate(*world, rule="mutual", neighbors=0)
    with pytest.raises(ValueError, match="add a column frame"):
        correlate(*world, rule="constrained")
