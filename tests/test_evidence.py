"""Evidence for the report's figures: ranked lists compared with a slow ranking, and features of a few people."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax.evaluation import LabelledImages, retrieval_scores
from cion_jax.evaluation.evidence import IMAGES_EACH, LENGTH, LISTED, PEOPLE, Evidence, gather
from cion_jax.models import create_model
from cion_jax.reporting.attention import class_attention

RANDOM = np.random.default_rng(0)


def made(people=20, each=12, dim=8):
    """Queries and gallery of people from three cameras, with their features."""
    ids, cameras = np.repeat(np.arange(people), each), np.tile(np.arange(each) % 3, people)
    features = (RANDOM.normal(size=(people, dim))[ids] + RANDOM.normal(size=(people * each, dim))).astype(np.float32)
    images = LabelledImages([f"{row}.png" for row in range(len(ids))], ids, cameras)
    query = np.flatnonzero(np.arange(len(ids)) % each < 3)
    gallery = np.setdiff1d(np.arange(len(ids)), query)
    return images.select(query), images.select(gallery), features[query], features[gallery]


def precision_of(query, gallery, query_features, gallery_features):
    labels = query.ids, gallery.ids, query.cameras, gallery.cameras
    return retrieval_scores(query_features, gallery_features, *labels).average_precision


def test_lists_are_those_of_a_slow_ranking():
    query, gallery, query_features, gallery_features = made()
    precision = precision_of(query, gallery, query_features, gallery_features)
    kept = gather(query, gallery, query_features, gallery_features, precision, ignore_camera=False)
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (query_features, gallery_features)]
    for number, listed in enumerate(kept.listed):
        assert kept.listed_paths[number] == query.paths[listed]
        allowed = (gallery.ids != query.ids[listed]) | (gallery.cameras != query.cameras[listed])
        away = np.where(allowed, 1 - unit[1] @ unit[0][listed], np.inf)
        order = np.argsort(away, kind="stable")[:LENGTH]
        assert kept.ranked_paths[number].tolist() == [gallery.paths[image] for image in order]
        assert kept.ranked_right[number].tolist() == (gallery.ids[order] == query.ids[listed]).tolist()
        np.testing.assert_allclose(kept.ranked_distances[number], away[order], atol=1e-5)


def test_the_worst_and_the_best_are_listed_with_different_people():
    query, gallery, *features = made()
    precision = RANDOM.permutation(len(query.ids)) / len(query.ids)
    precision[3] = np.nan
    kept = gather(query, gallery, *features, precision, ignore_camera=False)
    assert len(kept.listed) == 2 * LISTED
    assert len(set(kept.listed_people[:LISTED])) == LISTED == len(set(kept.listed_people[LISTED:]))
    values = precision[kept.listed]
    assert (np.diff(values) > 0).all() and values[0] == np.nanmin(precision) and values[-1] == np.nanmax(precision)


def test_images_past_the_end_of_a_short_gallery_are_infinitely_far():
    query, gallery, query_features, gallery_features = made(people=2, each=4)
    precision = precision_of(query, gallery, query_features, gallery_features)
    kept = gather(query, gallery, query_features, gallery_features, precision, ignore_camera=False)
    allowed = [
        np.count_nonzero((gallery.ids != person) | (gallery.cameras != query.cameras[number]))
        for number, person in zip(kept.listed, kept.listed_people)
    ]
    assert np.isfinite(kept.ranked_distances).sum(axis=1).tolist() == allowed


def test_features_are_those_of_the_same_people_for_any_network(tmp_path):
    query, gallery, query_features, gallery_features = made(people=40, each=60)
    precision = np.full(len(query.ids), 0.5)
    first, second = (
        gather(query, gallery, query_features + shift, gallery_features + shift, precision, ignore_camera=False)
        for shift in (0, 1)
    )
    assert (first.people == second.people).all() and np.allclose(first.features + 1, second.features, atol=1e-5)
    people, counts = np.unique(first.people, return_counts=True)
    assert len(people) == PEOPLE and (counts == IMAGES_EACH).all()
    means = np.array([first.features[first.people == person].mean(0) for person in people])
    everything = np.concatenate([query_features, gallery_features])
    ids = np.concatenate([query.ids, gallery.ids])
    true = np.array([everything[ids == person].mean(0) for person in people])
    assert (np.linalg.norm(means[:, None] - true[None], axis=2).argmin(1) == np.arange(PEOPLE)).all()
    first.save(tmp_path / "kept.npz")
    for before, after in zip(first, Evidence.load(tmp_path / "kept.npz")):
        assert np.array_equal(before, after)


def test_other_files_are_refused_by_name(tmp_path):
    (tmp_path / "kept.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match=r"kept\.npz: not what evaluation writes"):
        Evidence.load(tmp_path / "kept.npz")
    with pytest.raises(ValueError, match=r"gone\.npz: no such file"):
        Evidence.load(tmp_path / "gone.npz")


@pytest.mark.slow
def test_attention_of_the_class_token_is_that_of_the_last_block(monkeypatch):
    model = create_model("vit_test", rngs=nnx.Rngs(1))
    images = jnp.asarray(RANDOM.normal(size=(2, 48, 32, 3)), jnp.float32)
    calls, compute = [], jax.nn.dot_product_attention
    monkeypatch.setattr(
        jax.nn, "dot_product_attention", lambda q, k, *rest: calls.append((q, k)) or compute(q, k, *rest)
    )
    evaluated = nnx.merge(*nnx.split(model))
    evaluated.eval()
    evaluated.features(images)
    monkeypatch.undo()
    queries, keys = (np.asarray(side, np.float64) for side in calls[-1])  # [b, tokens, heads, d]
    expected = np.zeros((2, 6))
    for image in range(2):
        for head in range(queries.shape[2]):
            score = keys[image, :, head] @ queries[image, 0, head] / np.sqrt(queries.shape[-1])
            weights = np.exp(score - score.max())
            expected[image] += (weights / weights.sum())[1:] / queries.shape[2]
    found = class_attention(model, images)
    assert found.shape == (2, 3, 2) and np.ptp(expected) > 1e-5
    np.testing.assert_allclose(np.asarray(found).reshape(2, -1), expected, atol=1e-6)
    assert len(model.blocks) == 2  # the model itself stays as it was
