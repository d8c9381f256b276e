"""The threshold at which links begin to chain, against its definition, and on worlds where chaining is known."""

from contextlib import nullcontext

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering

from cion_jax.correlation.calibration import calibrate
from cion_jax.correlation.chaining import SUPPORTED, THRESHOLDS, unchained_threshold
from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.proposal import propose


def track(total):
    return nullcontext(lambda count: None)


def people(seed, count, sightings, spread, dim=64):
    """Unit vectors `[count * sightings, dim]`: each person as often, in random order."""
    random = np.random.default_rng(seed)
    centers = np.repeat(random.normal(size=(count, dim)) / dim**0.5, sightings, axis=0)
    x = centers + spread * random.normal(size=centers.shape) / dim**0.5
    x = x[random.permutation(len(x))]
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def support(features, sigma, reach):
    """Links and pairs joined within `reach`, by single linkage, which closes links at `sigma`."""
    distances = 1 - features.astype(np.float64) @ features.T.astype(np.float64)
    away = np.abs(np.subtract.outer(np.arange(len(features)), np.arange(len(features))))
    tree = AgglomerativeClustering(None, metric="precomputed", linkage="single", distance_threshold=sigma)
    labels = tree.fit_predict(np.where(away <= reach, np.maximum(distances, 0), 3))
    rows, columns = np.triu_indices(len(features), 1)
    near = away[rows, columns] <= reach
    links = (distances[rows, columns] <= sigma) & near
    joined = (labels[rows] == labels[columns]) & near
    return links.sum(), joined.sum()


@pytest.mark.parametrize("reach", [None, 40])
@pytest.mark.parametrize("spread", [0.3, 0.7, 1.0])
def test_the_threshold_is_the_largest_with_enough_support(spread, reach):
    features = people(0, 25, 8, spread)
    groups, ceiling = Groups(np.arange(len(features)), features), 0.9
    sigma, found = unchained_threshold(groups, features, reach, ceiling, track)
    tried = np.linspace(ceiling, 0, THRESHOLDS, endpoint=False).round(4)
    looser = tried[tried >= sigma]
    counts = {one: support(features, one, reach or len(features)) for one in {*looser[::9], *looser[-2:], sigma}}
    shares = {one: links / max(joined, 1) for one, (links, joined) in counts.items()}
    assert shares[sigma] == pytest.approx(found, abs=1e-3) and found >= SUPPORTED
    assert all(share < SUPPORTED + 1e-3 for one, share in shares.items() if one > sigma)


def test_people_who_differ_are_linked_and_a_continuum_is_not():
    features = people(1, 30, 10, 0.3)
    clear = unchained_threshold(Groups(np.arange(300), features), features, None, 0.4, track)
    assert clear == (0.4, 1.0)
    angles = np.linspace(0, np.pi, 400)
    chain = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    sigma, found = unchained_threshold(Groups(np.arange(400), chain), chain, None, 0.5, track)
    assert sigma > 0.4 or sigma < 1e-2  # nearly all pairs are links, or none: nothing between is supported
    assert found >= SUPPORTED or sigma == 0


def test_a_proposal_never_chains_where_calibration_alone_would():
    """One video in a hundred films look-alikes: too few for the rate, enough to connect everybody."""
    random = np.random.default_rng(2)
    crowd = random.normal(size=(300, 24))
    crowd[:100] = crowd[0] + 1.1 * random.normal(size=(100, 24))
    features = (np.repeat(crowd, 6, axis=0) + 0.15 * random.normal(size=(1800, 24))).astype(np.float32)
    tracklets = np.repeat(random.permutation(300), 6)
    order = np.argsort(tracklets, kind="stable")
    features, tracklets = features[order], tracklets[order]
    videos, frames = tracklets // 3, np.tile(np.arange(6), 300)
    calibration = calibrate(features, videos, tracklets, frames)
    found = propose(calibration, features, videos, tracklets, false_links=20, half_width="all")
    assert found.sigma_drm < found.ceiling and found.support >= SUPPORTED
    centroids = np.stack([features[tracklets == t].mean(0) for t in range(300)])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    links, joined = support(centroids, found.ceiling, 300)
    assert links < SUPPORTED * joined
