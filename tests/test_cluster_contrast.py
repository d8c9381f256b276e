"""Cluster-Contrast's network and training steps against the released code, and what it does before each epoch."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cion_jax.configs import finetune_clusters
from cion_jax.conversion import signature, state_dict
from cion_jax.conversion.finetuned_resnets import package_keys, released_keys
from cion_jax.distillation.schedules import Curriculum, Stage
from cion_jax.finetuning.cluster_contrast import ClusterContrast, parameter_groups
from cion_jax.finetuning.cluster_encoder import ClusterEncoder
from cion_jax.finetuning.cluster_memory import ClusterMemory
from cion_jax.finetuning.method import TrainingData
from cion_jax.finetuning.methods import create_method
from cion_jax.finetuning.pseudo_labels import Clustering
from cion_jax.models import create_model
from tests.finetune_reference import FOLDER, fill, functional, pixels, read_json, symmetric, unit
from tests.refweights import weight

MODEL = read_json("ccontrast_model.json")
ARRAYS = np.load(FOLDER / "ccontrast_model.npz")
CONFIGS = Path(__file__).parent.parent / "configs" / "finetune"
NETWORKS = {"resnet50": "resnet50", "resnet_ibn50a": "resnet50_ibn"}


@pytest.mark.parametrize("file", ["mgn", "usl", "uda"])
def test_configs_have_the_settings_of_each_data_set(file):
    get_config = runpy.run_path(str(CONFIGS / f"{file}.py"))["get_config"]
    market, msmt = get_config("market1501/resnet50_ibn"), get_config("msmt17/resnet101")
    assert (market.model, msmt.model) == ("resnet50_ibn", "resnet101") and msmt.data.split == "train+val"
    for config in (market, msmt):
        assert create_method(config).preprocessing.size == (config.canvas if file == "mgn" else (256, 128))
    if file == "mgn":
        with pytest.raises(ValueError, match="a model of list_models"):
            get_config("market1501/vit_base")
    else:
        assert (market.cluster_contrast.clustering.eps, msmt.cluster_contrast.clustering.eps) == (0.6, 0.7)
        assert (market.evaluate.every_epochs, msmt.evaluate.every_epochs) == (10, 50 if file == "usl" else 10)
        assert create_method(get_config("market1501/vit_base")).relabels


def method(**settings):
    config = finetune_clusters.get_config("market1501/resnet50").cluster_contrast
    config.update(settings)
    return ClusterContrast(config)


@pytest.mark.parametrize("name", NETWORKS)
def test_keys_are_the_released_ones(name):
    expected = MODEL["model"][name]
    shapes = nnx.eval_shape(lambda: ClusterEncoder(create_model(NETWORKS[name])))
    tensors = released_keys(signature(shapes))
    keys = list(tensors)
    assert len(keys) == expected["n_keys"]
    first, last = expected["first_base_keys"], expected["last_base_keys"]
    assert keys[: len(first)] == first and keys[-6 - len(last) : -6] == last
    assert [[key, list(tensors[key][0])] for key in keys[-6:]] == expected["non_base_keys"]
    assert package_keys(tensors) == signature(shapes)
    params = nnx.as_pure(nnx.state(shapes, nnx.Param))
    assert sum(x.size for x in jax.tree.leaves(params)) == expected["n_params"]
    groups = jax.tree.leaves_with_path(parameter_groups(params))
    fixed = [".".join(str(entry.key) for entry in path) for path, group in groups if group == "fixed"]
    assert fixed == expected["not_trained"]


def test_a_vit_keeps_its_class_token():
    base = create_model("vit_test")
    network = ClusterEncoder(base)
    network.eval()
    base.eval()
    images = pixels("x", (2, 3, 64, 32)).astype(jnp.float32)
    token = np.asarray(base(images))
    np.testing.assert_allclose(network(images), unit(token), atol=1e-5)  # a fresh normalisation changes nothing
    assert next(key for key in state_dict(network) if not key.startswith("base.")) == "feat_bn.weight"
    assert released_keys(state_dict(network)).keys() == state_dict(network).keys()


@pytest.fixture
def double_precision():
    with jax.enable_x64(True):
        yield


def network(name, *, fresh_norm):
    def values(key, shape):
        if key.startswith("base."):
            return weight(key.removeprefix("base."), shape)
        return None if fresh_norm or key == "gap.p" else weight(key, shape)

    encoder = ClusterEncoder(create_model(NETWORKS[name], dtype=jnp.float64))
    fill(encoder, values)
    return encoder


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_the_released_ones(name, double_precision):
    encoder = network(name, fresh_norm=False)
    encoder.eval()
    features, expected = jax.jit(encoder)(pixels("cc/eval", (2, 3, 128, 64))), ARRAYS[f"{name}/eval"]
    assert np.abs(features - expected).max() / expected.std() < 1e-6
    encoder.train()
    trained = jax.jit(lambda x: nnx.merge(*nnx.split(encoder), copy=True)(x))(pixels("cc/train", (8, 3, 64, 32)))
    np.testing.assert_allclose(trained[:, :6], MODEL["model"][name]["train_first6"], atol=1e-9)


@pytest.mark.slow
def test_trajectories(double_precision):
    """Four steps at two rates; the bounds are above what noise of 1e-12 in the pixels changes."""
    ours, plan = method(), Curriculum((Stage(1, 0, 50, 0, 200),))

    def loss(outputs, labels, memory):
        value, _, memory = ours.loss(outputs, labels, memory, axis_name=None)
        return value, memory

    *initial, gradients, features = functional(network("resnet_ibn50a", fresh_norm=True), loss)
    for name, loss_bound, probe_bound in (("trajectory_lr0.00035", 1e-6, 1e-4), ("trajectory_lr1e-05", 1e-8, 1e-6)):
        case, (params, stats) = MODEL[name], initial
        ours.settings.optimizer.learning_rate = case["lr"]
        optimizer = ours.optimizer(plan)
        state = optimizer.init(params)
        memory = ClusterMemory(jnp.asarray(unit(symmetric("cc/memory", (4, 2048)))), jnp.asarray(4))
        for number, step in enumerate(case["steps"]):
            x, labels = pixels(f"cc/step{number}", (8, 3, 64, 32)), jnp.array(step["labels"])
            found, (_, value, stats, memory) = gradients(params, stats, x, labels, memory)
            np.testing.assert_allclose(found["gap"]["p"], [step["grad_p"]], rtol=1e3 * loss_bound)
            updates, state = optimizer.update(found, state, params)
            params = optax.apply_updates(params, updates)
            np.testing.assert_allclose(value, step["loss"], rtol=loss_bound)
            np.testing.assert_allclose(params["gap"]["p"], [step["p"]], rtol=1e-9)
            np.testing.assert_allclose(
                jnp.linalg.norm(params["feat_bn"]["scale"]), step["feat_bn_weight_norm"], rtol=1e-9
            )
            np.testing.assert_allclose(memory.centroids[:, :4], step["memory_first4"], atol=10 * loss_bound)
            np.testing.assert_allclose(memory.centroids.sum(), step["memory_sum"], rtol=1e3 * loss_bound)
        probe, expected = features(params, stats, pixels("cc/probe", (2, 3, 64, 32))), ARRAYS[f"{name}/probe"]
        assert np.abs(probe - expected).max() / expected.std() < probe_bound


def test_rates_fall_tenfold_every_20_epochs():
    ours, plan = method(), Curriculum((Stage(1, 0, 50, 0, 200),))
    optimizer = ours.optimizer(plan)
    params = {"feat_bn": {"bias": jnp.ones(1), "scale": jnp.ones(1)}}
    gradients, state = jax.tree.map(jnp.zeros_like, params), optimizer.init(params)
    counted = lambda step: jax.tree.map(lambda x: jnp.full_like(x, step) if x.dtype == jnp.int32 else x, state)  # noqa: E731
    for step, rate in ((0, 3.5e-4), (3999, 3.5e-4), (4000, 3.5e-5), (8000, 3.5e-6), (9999, 3.5e-6)):
        updates, _ = optimizer.update(gradients, counted(step), params)
        np.testing.assert_allclose(updates["feat_bn"]["scale"], -rate * 5e-4, rtol=1e-6)
        assert updates["feat_bn"]["bias"] == 0


DATA = TrainingData(np.array([f"{i}.jpg" for i in range(12)]), FOLDER, np.repeat([0, 1], 6), None)
FEATURES = unit(np.random.default_rng(0).normal(size=(11, 4))).astype(np.float32)
ROWS = np.array([0, *range(2, 12)])


def relabelled(monkeypatch, labels, *, epoch, previous=None):
    """`relabel` of twelve images, the second of which cannot be decoded, with clusters `labels` of the others."""
    ours = method()
    monkeypatch.setattr(ours, "_features", lambda network, data: (FEATURES, ROWS))
    monkeypatch.setattr(
        "cion_jax.finetuning.cluster_contrast.cluster",
        lambda features, settings, truth: Clustering(np.array(labels), None),
    )
    previous = DATA.labels if previous is None else previous
    return ours.relabel(None, DATA, previous, None, epoch=epoch)


def test_clusters_become_labels_and_memory(monkeypatch):
    labels = [0, 0, 0, 0, 1, 1, 1, -1, 1, 1, 1]
    labelled = relabelled(monkeypatch, labels, epoch=0)
    np.testing.assert_array_equal(labelled.labels[ROWS], labels)
    assert labelled.labels[1] == -1
    assert labelled.metrics == {"clusters": 2, "outliers": 1, "undecodable": 1}
    np.testing.assert_allclose(labelled.memory.centroids[0], unit(FEATURES[:4].sum(0)), rtol=1e-5)
    empty = method().initial_memory(ClusterEncoder(create_model("resnet_test")), DATA)
    assert empty.centroids.shape == (3, 192) and labelled.memory.centroids.shape == (3, 4)


@pytest.mark.parametrize(
    ("labels", "count", "remedy"), [([-1] * 11, "no cluster", "raise"), ([0] * 11, "one", "lower")]
)
def test_collapse_is_reported_and_previous_labels_stay(monkeypatch, capsys, labels, count, remedy):
    with pytest.raises(ValueError, match=f"form .*{count}.*with eps 0.6; {remedy} clustering.eps"):
        relabelled(monkeypatch, labels, epoch=0)
    previous = np.array([0, 1, 0, 0, 0, 0, -1, 1, 1, 1, 1, 1])
    labelled = relabelled(monkeypatch, labels, epoch=3, previous=previous)
    np.testing.assert_array_equal(labelled.labels, previous)
    assert labelled.memory.clusters == 2
    assert "The previous labels stay" in capsys.readouterr().err.replace("\n", " ")


def test_data_and_settings_that_cannot_be_clustered_are_refused():
    with pytest.raises(ValueError, match="12 images can't form two clusters of 7"):
        method(clustering={"min_samples": 7}).plan(DATA, 1)
    with pytest.raises(ValueError, match="use 256 or 260"):
        method(batch_size=258).plan(DATA, 4)
    with pytest.raises(ValueError, match="at least one of each"):
        method(steps_per_epoch=0).plan(DATA, 1)
