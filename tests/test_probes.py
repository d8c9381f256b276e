"""Probes against scikit-learn's classifiers, and what they hold out."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from cion_jax.evaluation.probes import hold_out_cameras, knn_predict, linear_predict, probe


def labelled(seed, people=9, images=240, dim=6, noise=0.7):
    """Features that overlap between people, so that classifiers make mistakes, with labels and cameras."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, people, images)
    features = rng.normal(size=(people, dim))[labels] + noise * rng.normal(size=(images, dim)) + 3
    return (features * rng.uniform(0.5, 2, dim)).astype(np.float32), labels, rng.integers(1, 4, images)


@pytest.mark.parametrize("k", [1, 7, 1000])
def test_neighbours_vote_as_in_scikit_learn(k, monkeypatch):
    monkeypatch.setattr("cion_jax.evaluation.distances.BLOCK_BYTES", 50 * 160 * 4)
    features, labels, _ = labelled(0)
    votes = KNeighborsClassifier(min(k, 160), metric="cosine", weights=lambda away: np.exp((1 - away) / 0.07))
    expected = votes.fit(features[:160], labels[:160]).predict(features[160:])
    predicted = knn_predict(features[:160], labels[:160], features[160:], k=k)
    assert predicted.tolist() == expected.tolist()
    assert 0.3 < np.mean(predicted == labels[160:]) < 1


@pytest.mark.parametrize("strength", [0.03, 1.0])
def test_the_linear_probe_is_that_of_scikit_learn(strength):
    features, labels, _ = labelled(1)
    scaled = StandardScaler().fit(features[:160])
    regression = LogisticRegression(C=strength, tol=1e-8, max_iter=5000)
    regression.fit(scaled.transform(features[:160]), labels[:160])
    expected = regression.predict_proba(scaled.transform(features[160:]))
    predicted = linear_predict(features[:160], labels[:160], features[160:], strength=strength)
    ordered = np.sort(expected, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 1e-3  # where rounding does not decide
    assert clear.sum() > 70
    assert predicted[clear].tolist() == expected.argmax(axis=1)[clear].tolist()
    assert 0.3 < np.mean(predicted == labels[160:]) < 1


def test_one_camera_of_each_person_is_held_out():
    rng = np.random.default_rng(2)
    ids, cameras = rng.integers(0, 30, 300), rng.integers(0, 5, 300)
    cameras[ids == 4] = 2
    fitted, tested = hold_out_cameras(ids, cameras)
    assert sorted([*fitted, *tested]) == list(range(300))
    for identity in range(30):
        held, kept = (set(cameras[rows][ids[rows] == identity]) for rows in (tested, fitted))
        assert len(held) == (identity != 4) and kept and not held & kept
    assert hold_out_cameras(ids, cameras, seed=1)[1].tolist() != tested.tolist()
    with pytest.raises(ValueError, match="no person was seen by two cameras"):
        hold_out_cameras(ids, ids)


def test_identities_need_not_count_from_zero():
    features, labels, cameras = labelled(3, noise=0.05)
    scores = probe(features, 100 + 7 * labels, cameras)
    assert (scores.knn, scores.linear, scores.people) == (1, 1, 9)
    assert scores.fitted + scores.tested == 240 and scores.tested > 50
    shuffled = probe(features, np.random.default_rng(0).permutation(labels), cameras)
    assert shuffled.knn < 0.4 and shuffled.linear < 0.4
