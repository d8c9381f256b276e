"""Re-ranking against k-reciprocal encoding written densely, set by set, from the paper's equations."""

import numpy as np
import pytest

from cion_jax.evaluation import KReciprocal, reranked_distances, retrieval_scores


def by_the_paper(query, gallery, k1, k2, lambda_):
    """d* `[queries, gallery]` of Zhong et al., with sets and dense float64 matrices."""
    features = np.concatenate([query, gallery]).astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    squared = ((features[:, None] - features[None]) ** 2).sum(-1)
    distance = squared / squared.max(axis=0)[:, None]  # symmetric before: a row's maximum is its column's
    everyone = range(len(features))
    order = np.argsort(distance, axis=1, kind="stable")

    def reciprocal(p, k):
        return {g for g in order[p, : k + 1] if p in order[g, : k + 1]}

    encoding = np.zeros_like(distance)
    for p in everyone:
        near = reciprocal(p, k1)
        expanded = set(near)
        for q in near:
            others = reciprocal(q, round(k1 / 2))
            if len(near & others) > 2 / 3 * len(others):
                expanded |= others
        for g in expanded:
            encoding[p, g] = np.exp(-distance[p, g])
    encoding /= encoding.sum(axis=1, keepdims=True)
    encoding = np.stack([np.mean([encoding[q] for q in order[p, :k2]], axis=0) for p in everyone])
    smaller = np.minimum(encoding[:, None], encoding[None]).sum(-1)
    larger = np.maximum(encoding[:, None], encoding[None]).sum(-1)
    final = (1 - lambda_) * (1 - smaller / larger) + lambda_ * distance
    return final[: len(query), len(query) :]


def people(seed, queries=15, gallery=60, identities=8, dim=8, noise=0.6):
    """Features that cluster by identity, so that neighbourhoods expand, and the identities."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(identities, dim))
    ids = np.concatenate([np.arange(queries) % identities, rng.integers(0, identities, gallery)])
    features = (means[ids] + noise * rng.normal(size=(len(ids), dim))).astype(np.float32)
    return features[:queries], features[queries:], ids[:queries], ids[queries:]


@pytest.mark.parametrize("k1", [1, 5, 6, 7, 20])
@pytest.mark.parametrize("k2", [1, 3, 6])
def test_distances_are_those_of_the_paper(k1, k2, monkeypatch):
    monkeypatch.setattr("cion_jax.evaluation.distances.BLOCK_BYTES", 20 * 75 * 4)  # four blocks of rows
    monkeypatch.setattr("cion_jax.evaluation.k_reciprocal._ROWS_AT_ONCE", 32)
    query, gallery, _, _ = people(seed=k1)
    distances_of = reranked_distances(query, gallery, KReciprocal(k1, k2, 0.3))
    expected = by_the_paper(query, gallery, k1, k2, 0.3)
    np.testing.assert_allclose(distances_of(np.arange(15)), expected, atol=1e-6)
    np.testing.assert_allclose(distances_of(np.array([7, 2])), expected[[7, 2]], atol=1e-6)


def test_neighbourhoods_of_the_world_expand():
    """The rule of 2/3 says yes and no here: with either answer for all, distances would be others."""
    query, gallery, _, _ = people(seed=20)
    features = np.concatenate([query, gallery]).astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    order = np.argsort(-features @ features.T, axis=1)

    def reciprocal(p, k):
        return {g for g in order[p, : k + 1] if p in order[g, : k + 1]}

    shares = [
        len(reciprocal(p, 20) & reciprocal(q, 10)) / len(reciprocal(q, 10))
        for p in range(75)
        for q in reciprocal(p, 20)
    ]
    assert np.mean(np.array(shares) < 0.6) > 0.02 and np.mean(np.array(shares) > 0.7) > 0.02


def test_lambda_one_is_the_distance_over_its_maximum():
    query, gallery, *_ = people(seed=3)
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (query, np.concatenate([query, gallery]))]
    apart = 1 - unit[0] @ unit[1].T
    expected = apart[:, 15:] / apart.max(axis=1, keepdims=True)
    np.testing.assert_allclose(
        reranked_distances(query, gallery, KReciprocal(lambda_=1))(np.arange(15)), expected, atol=1e-6
    )


def test_few_images_are_all_neighbours():
    query, gallery, *_ = people(seed=4, queries=2, gallery=5)
    np.testing.assert_allclose(
        reranked_distances(query, gallery, KReciprocal())(np.arange(2)),
        by_the_paper(query, gallery, 20, 6, 0.3),
        atol=1e-6,
    )


def test_scores_of_reranked_distances():
    query, gallery, query_ids, gallery_ids = people(seed=5, dim=16, noise=1.2)
    cameras = np.zeros(15, int), np.ones(60, int)
    scores = retrieval_scores(query, gallery, query_ids, gallery_ids, *cameras, rerank=KReciprocal(10, 3, 0.3))
    final = by_the_paper(query, gallery, 10, 3, 0.3)
    precisions = []
    for distances, identity in zip(final, query_ids):
        correct = (gallery_ids == identity)[np.argsort(distances, kind="stable")]
        precisions.append((np.cumsum(correct) / np.arange(1, 61))[correct].mean())
    np.testing.assert_allclose(scores.average_precision, precisions, atol=1e-6)
    plain = retrieval_scores(query, gallery, query_ids, gallery_ids, *cameras)
    assert scores.mAP > plain.mAP + 0.01  # what it is for


def test_impossible_settings_and_equal_features_are_refused():
    query, gallery, *_ = people(seed=0)
    for settings in (KReciprocal(k1=0), KReciprocal(k2=0), KReciprocal(lambda_=1.5)):
        with pytest.raises(ValueError, match=r"k1 and k2 are at least 1 and lambda is between 0 and 1"):
            reranked_distances(query, gallery, settings)
    with pytest.raises(ValueError, match="features of all images are equal"):
        reranked_distances(np.ones((2, 4), np.float32), np.ones((9, 4), np.float32), KReciprocal())
