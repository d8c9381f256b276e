"""Parts of MGN and Cluster-Contrast against values measured on the released code (tests/reference/finetune)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from cion_jax.evaluation import KReciprocal, reranked_distances
from cion_jax.finetuning.circle import ADAPTIVE, circle_logits, smoothed_cross_entropy
from cion_jax.finetuning.cluster_memory import ClusterMemory, cluster_contrast_loss, start_memory, update_memory
from cion_jax.finetuning.gem import GeM
from cion_jax.finetuning.losses import triplet_loss
from cion_jax.finetuning.pseudo_labels import ClusterSettings, cluster, jaccard_distances
from tests.refweights import uniform

REFERENCE = Path(__file__).parent / "reference" / "finetune"
MGN_LOSSES = json.loads((REFERENCE / "mgn_losses.json").read_text())
PARTS = json.loads((REFERENCE / "ccontrast_parts.json").read_text())
ARRAYS = np.load(REFERENCE / "ccontrast_parts.npz")
RERANK = json.loads((REFERENCE / "rerank.json").read_text())


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def symmetric(name, shape, scale=1.0):
    return scale * (2 * uniform(name, shape) - 1)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def value_and_gradient(function, *arguments, which=0):
    value, gradient = jax.value_and_grad(function, argnums=which)(*map(jnp.asarray, arguments))
    return float(value), np.asarray(gradient)


def by_tag(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.get("name", case["tag"]))


@by_tag(MGN_LOSSES)
def test_smoothed_cross_entropy(case):
    logits = symmetric(case["tag"] + "/logits", (case["batch"], case["classes"]), 4)
    labels = np.array(case["labels"])
    for smoothing, key in ((0.0, "ce_eps0.0"), (0.1, "ce_eps0.1"), (ADAPTIVE, "ce_eps-1")):
        loss, gradient = value_and_gradient(lambda x, s=smoothing: smoothed_cross_entropy(x, labels, s), logits)
        np.testing.assert_allclose(loss, case[key]["loss"], rtol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(gradient), case[key]["grad_norm"][0], rtol=1e-9)


@by_tag([case for case in MGN_LOSSES if len(set(case["labels"])) > 1])
def test_triplet_of_fastreid_is_the_one_of_transreid(case):
    features, labels = symmetric(case["tag"] + "/feat", (case["batch"], case["dim"]), 1.5), np.array(case["labels"])
    for margin, key in ((None, "0.0"), (0.3, "0.3")):
        for normalise in (False, True):
            expected = case[f"triplet_margin{key}_norm{normalise:d}_hard1"]
            loss, gradient = value_and_gradient(
                lambda x, m=margin, n=normalise: triplet_loss(x, labels, m, normalise=n), features
            )
            np.testing.assert_allclose(loss, expected["loss"], rtol=1e-9)
            np.testing.assert_allclose(np.linalg.norm(gradient), expected["grad_norm"][0], rtol=1e-7)


@by_tag(MGN_LOSSES)
def test_circle_softmax(case):
    features = symmetric(case["tag"] + "/feat", (case["batch"], case["dim"]), 1.5)
    weights = symmetric(case["tag"] + "/weight", (case["classes"], case["dim"])).T
    labels, expected = np.array(case["labels"]), case["circle_scale64_margin0.35"]
    logits = circle_logits(jnp.asarray(features), jnp.asarray(weights), labels)
    np.testing.assert_allclose(logits[0], expected["logits_row0"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(logits.sum(), expected["logits_sum"], rtol=1e-9)
    for which, key in ((0, "grad_feat_norm"), (1, "grad_weight_norm")):
        _, gradient = value_and_gradient(lambda x, w: circle_logits(x, w, labels).sum(), features, weights, which=which)
        np.testing.assert_allclose(np.linalg.norm(gradient), expected[key], rtol=1e-9)
    loss, gradient = value_and_gradient(
        lambda x: smoothed_cross_entropy(circle_logits(x, jnp.asarray(weights), labels), labels), features
    )
    np.testing.assert_allclose(loss, case["circle_then_ce0.1"]["loss"], rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(gradient), case["circle_then_ce0.1"]["grad_norm"], rtol=1e-9)


def gem_of(x, p, cotangent):
    """Pooled NCHW maps `[b, c]`, and the gradients of their product with the cotangent by maps and p."""

    def pooled(x, p):
        layer = GeM()
        layer.p.set_value(p)
        return layer(jnp.moveaxis(x, 1, -1))

    out, pull = jax.vjp(pooled, jnp.asarray(x), jnp.full(1, p))
    return out, *pull(jnp.asarray(cotangent).reshape(out.shape))


@by_tag(MGN_LOSSES)
def test_gem_of_mgn(case):
    expected = case["gem_p3"]
    out, by_map, by_p = gem_of(
        symmetric(case["tag"] + "/map", (2, 6, 4, 3), 2), 3.0, symmetric(case["tag"] + "/mapw", (2, 6, 1, 1))
    )
    np.testing.assert_allclose(out.ravel(), expected["out"], rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(by_map), expected["grad_norm"], rtol=1e-9)
    np.testing.assert_allclose(by_p, [expected["grad_p"]], rtol=1e-9)


@by_tag(PARTS["gem"])
def test_gem_of_cluster_contrast(case):
    shape = tuple(case["shape"])
    out, by_map, by_p = gem_of(symmetric(case["tag"], shape, 2), case["p"], symmetric(case["tag"] + "/w", shape[:2]))
    np.testing.assert_allclose(out.ravel(), case["out"], rtol=1e-9)
    np.testing.assert_allclose(by_map[0, 0], case["grad_first_map"], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(by_map), case["grad_norm"], rtol=1e-9)
    np.testing.assert_allclose(by_p, [case["grad_p"]], rtol=1e-9)


@by_tag(PARTS["memory"])
def test_cluster_memory_over_five_steps(case):
    shape, tag = (case["clusters"], case["dim"]), case["tag"]
    padded = np.concatenate([unit(symmetric(tag + "/memory", shape)), np.zeros((3, case["dim"]))])
    memory = ClusterMemory(jnp.asarray(padded), jnp.asarray(case["clusters"]))
    for number, step in enumerate(case["steps"]):
        x, labels = symmetric(f"{tag}/step{number}", (case["batch"], case["dim"])), np.array(step["labels"])
        loss, gradient = value_and_gradient(
            lambda x, y=labels, m=memory: cluster_contrast_loss(x, y, m, case["temp"]), x
        )
        memory = update_memory(memory, jnp.asarray(x), labels, momentum=case["momentum"], hard=case["hard"])
        np.testing.assert_allclose(loss, step["loss"], rtol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(gradient), step["grad_norm"], rtol=1e-9)
        np.testing.assert_allclose(memory.centroids.sum(), step["memory_sum"], rtol=1e-9)
        np.testing.assert_allclose(memory.centroids[labels[0]], step["memory_row_of_first_label"], rtol=1e-9)
        if number in (0, 4):
            np.testing.assert_allclose(gradient, ARRAYS[f"{case['name']}/grad{number}"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(memory.centroids[: shape[0]], ARRAYS[f"{case['name']}/memory_after"], rtol=1e-9)
    assert not memory.centroids[shape[0] :].any()


def features_of(case):
    """The rows that the Jaccard distances were measured on."""
    n, dim, groups, tag = case["N"], case["D"], case["groups"], case["tag"]
    x = symmetric(tag + "/centers", (groups, dim))[np.arange(n) % groups]
    x = x + case["noise"] * symmetric(tag + "/noise", (n, dim))
    x[n - n // 8 :] = symmetric(tag + "/outliers", (n // 8, dim))
    return unit(x).astype(np.float32)


@by_tag(PARTS["jaccard"])
def test_jaccard_distances_and_clusters(case, monkeypatch):
    monkeypatch.setattr("cion_jax.finetuning.pseudo_labels._ROWS_AT_ONCE", 32)
    features, n = features_of(case), case["N"]
    distances = jaccard_distances(features, k1=case["k1"], k2=case["k2"], largest=1.0)
    assert distances.nnz == n * n
    rows = np.triu_indices(n, 1)
    np.testing.assert_allclose(distances.toarray()[rows], ARRAYS[case["tag"] + "/upper"], atol=1e-6)
    np.testing.assert_allclose(distances.diagonal(), ARRAYS[case["tag"] + "/diag"], atol=1e-6)
    for eps in (0.6, 0.7):
        expected = np.array(case[f"dbscan_eps{eps}"])
        found = cluster(features, ClusterSettings(case["k1"], case["k2"], eps), truth=expected)
        np.testing.assert_array_equal(found.labels, expected)
        assert (found.clusters, found.outliers) == (expected.max() + 1, (expected < 0).sum())
        assert found.scores is not None and found.scores.f1 == 1
        dense = DBSCAN(eps=eps, min_samples=4, metric="precomputed").fit_predict(distances.toarray())
        np.testing.assert_array_equal(found.labels, dense)
    labels = np.array(case["dbscan_eps0.6"])
    initial = start_memory(features, labels, capacity=n)
    clusters = int(initial.clusters)
    np.testing.assert_allclose(initial.centroids[:clusters], ARRAYS[case["tag"] + "/initial_memory_eps0.6"], atol=1e-6)


@by_tag(RERANK)
def test_reranking_of_the_released_codes(case):
    tag, groups, dim = case["tag"], case["groups"], case["dim"]
    centers = symmetric(tag + "/centers", (groups, dim))

    def side(name, count):
        x = centers[np.arange(count) % groups] + 0.7 * symmetric(f"{tag}/{name}", (count, dim))
        return unit(x).astype(np.float32)

    distances = reranked_distances(
        side("query", case["queries"]),
        side("gallery", case["gallery"]),
        KReciprocal(case["k1"], case["k2"], case["lambda_value"]),
    )(np.arange(case["queries"]))
    arrays = np.load(REFERENCE / "rerank.npz")
    # TransReID's is rounded to float16; the two others encode the square of the distance
    np.testing.assert_allclose(distances, arrays[tag + "/transreid"], atol=4e-3)


def test_more_clusters_than_the_memory_holds_are_refused():
    with pytest.raises(ValueError, match="3 clusters do not fit into a memory of 2"):
        start_memory(np.eye(3), np.arange(3), capacity=2)


def test_settings_of_the_clustering_are_checked():
    with pytest.raises(ValueError, match="eps is between 0 and 1"):
        ClusterSettings(eps=1.2)
