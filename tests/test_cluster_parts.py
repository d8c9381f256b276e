"""Parts of Cluster-Contrast against values measured on the released code (tests/reference/finetune)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from cion_jax.distillation.schedules import Curriculum, Stage
from cion_jax.evaluation import KReciprocal, reranked_distances
from cion_jax.finetuning.camera_sampler import CameraSampler
from cion_jax.finetuning.cluster_memory import ClusterMemory, cluster_contrast_loss, start_memory, update_memory
from cion_jax.finetuning.pseudo_labels import ClusterSettings, cluster, jaccard_distances
from tests.finetune_reference import FOLDER, gem_of, read_json, symmetric, unit

PARTS, RERANK, SAMPLER = (read_json(f"{name}.json") for name in ("ccontrast_parts", "rerank", "ccontrast_sampler"))
ARRAYS = np.load(FOLDER / "ccontrast_parts.npz")


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def by_tag(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.get("name", case["tag"]))


@by_tag(PARTS["gem"])
def test_gem_of_cluster_contrast(case):
    shape = tuple(case["shape"])
    out, by_map, by_p = gem_of(symmetric(case["tag"], shape, 2), case["p"], symmetric(case["tag"] + "/w", shape[:2]))
    np.testing.assert_allclose(out.ravel(), case["out"], rtol=1e-9)
    np.testing.assert_allclose(by_map[0, 0], case["grad_first_map"], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(by_map), case["grad_norm"], rtol=1e-9)
    np.testing.assert_allclose(by_p, [case["grad_p"]], rtol=1e-9)


value_and_gradient = jax.jit(jax.value_and_grad(cluster_contrast_loss))


@by_tag(PARTS["memory"])
def test_cluster_memory_over_five_steps(case):
    shape, tag = (case["clusters"], case["dim"]), case["tag"]
    padded = np.concatenate([unit(symmetric(tag + "/memory", shape)), np.zeros((3, case["dim"]))])
    memory = ClusterMemory(jnp.asarray(padded), jnp.asarray(case["clusters"]))
    for number, step in enumerate(case["steps"]):
        x, labels = symmetric(f"{tag}/step{number}", (case["batch"], case["dim"])), np.array(step["labels"])
        loss, gradient = value_and_gradient(jnp.asarray(x), labels, memory, case["temp"])
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
    arrays = np.load(FOLDER / "rerank.npz")
    # TransReID's is rounded to float16; the two others encode the square of the distance
    np.testing.assert_allclose(distances, arrays[tag + "/transreid"], atol=4e-3)


def test_more_clusters_than_the_memory_holds_are_refused():
    with pytest.raises(ValueError, match="3 clusters do not fit into a memory of 2"):
        start_memory(np.eye(3), np.arange(3), capacity=2)


def test_settings_of_the_clustering_are_checked():
    with pytest.raises(ValueError, match="eps is between 0 and 1"):
        ClusterSettings(eps=1.2)


# cameras of the images of each cluster: one image; several of one camera; several cameras
CLUSTERS = [
    [0],
    [1],
    [2, 2, 2],
    [0] * 9,
    [1, 1, 1, 1],
    [0, 1],
    [0, 1, 1, 2],
    [0, 0, 3],
    [0, 1, 2, 3, 4, 5],
    [1] * 9 + [2],
]
CLUSTERS += [[0, 1] * 8, [3, 3, 3, 2, 2, 2, 1, 1]]
CAMERAS = np.concatenate([np.array(cameras) for cameras in CLUSTERS])
LABELS = np.repeat(np.arange(len(CLUSTERS)), [len(cameras) for cameras in CLUSTERS])


def passes(k, epochs=300):
    """The runs of one pass over the clusters in each epoch: a batch is a pass long."""
    size = 2 + 10 * k
    plan = Curriculum((Stage(1, 0, epochs, 0, 1),))
    sampler = CameraSampler(LABELS, CAMERAS, plan, batch_size=size, images_per_cluster=k, seed=0)
    for step in range(epochs):
        rows = sampler[step]
        assert rows.shape == (size, 1)
        starts = np.flatnonzero(np.diff(LABELS[rows[:, 0]], prepend=-1))
        yield np.split(rows[:, 0], starts[1:])


@pytest.mark.parametrize("k", [4, 8])
def test_sampler_has_the_counted_properties(k):
    """The reference counts them on another set with as many clusters of one image, and of several cameras."""
    expected = SAMPLER[f"K{k}"]
    count = dict.fromkeys(("identity_runs", "single", "another", "same_camera", "anchor_again"), 0)
    for runs in passes(k):
        assert sorted(LABELS[run[0]] for run in runs) == list(range(len(CLUSTERS)))
        assert sum(map(len, runs)) == expected["len_produced"]
        for anchor, *others in runs:
            cameras = CAMERAS[LABELS[anchor] == LABELS]
            another = (cameras != CAMERAS[anchor]).any()
            count["identity_runs"] += 1
            count["single"] += len(cameras) == 1
            assert len(others) == (0 if len(cameras) == 1 else k - 1)
            count["another"] += another
            count["same_camera"] += another and (CAMERAS[others] == CAMERAS[anchor]).any()
            count["anchor_again"] += anchor in others
            candidates = np.flatnonzero(
                (LABELS[anchor] == LABELS)
                & ((CAMERAS[anchor] != CAMERAS) if another else (np.arange(len(LABELS)) != anchor))
            )
            assert set(others) <= set(candidates)
            if len(candidates) >= k:
                assert len(set(others)) == k - 1
    assert count == {
        "identity_runs": expected["identity_runs"],
        "single": expected["runs_with_single_image_identity_giving_1_index"],
        "another": expected["runs_where_another_camera_exists"],
        "same_camera": expected["of_those_with_a_later_image_from_the_anchor_camera"],
        "anchor_again": 0,
    }


def test_batches_depend_on_seed_and_step_only():
    plan = Curriculum((Stage(1, 0, 2, 0, 5),))

    def sampler(seed=0, labels=LABELS):
        return CameraSampler(labels, CAMERAS, plan, batch_size=16, images_per_cluster=4, seed=seed)

    ours = [sampler()[step] for step in range(10)]
    again = sampler()
    np.testing.assert_array_equal([again[step] for step in reversed(range(10))][::-1], ours)
    assert any((sampler(seed=1)[step] != ours[step]).any() for step in range(10))
    few = np.where(LABELS < 3, LABELS, -1)  # a pass is shorter than a batch
    assert all((few[sampler(labels=few)[step]] >= 0).all() for step in range(10))
