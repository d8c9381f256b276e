"""Every model by name: features, gradients, sizes, and the registry's errors."""

import functools
import gzip
import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax.conversion import load_state_dict, signature, state_dict
from cion_jax.models import create_model, list_models, model_info, registry
from cion_jax.models.cost import gflops
from cion_jax.models.layers import BatchNorm
from tests.networks import compiled
from tests.refweights import image, weight

REFERENCE = Path(__file__).parent / "reference"
TEST_MODELS = list_models("*_test")
ZOO_MODELS = [name for name in list_models() if name not in TEST_MODELS]
QUICK = ("resnet18_ibn", "vit_tiny")
QUICK_TO_TRAIN = ("vit_test",)
every_zoo_model = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ZOO_MODELS]
)


@functools.cache
def reference_state_dicts():
    # measured on the authors' released PyTorch modules in float64
    with gzip.open(REFERENCE / "state_dicts.json.gz", "rt") as file:
        return json.load(file)


def reference_weights(name):
    """The weights behind features.npz, without the constants."""
    entry = reference_state_dicts()[name]
    return {
        key: np.zeros(shape, dtype) if dtype == "int64" else weight(key, shape, 0, entry["norm_scale"])
        for key, shape, dtype in entry["state_dict"]
        if key not in entry["constant_sha256"]
    }


def constants(name, model):
    """The buffers that the model computes, which are the released model's."""
    released, computed = reference_state_dicts()[name]["constant_sha256"], state_dict(model)
    for key, digest in released.items():
        assert hashlib.sha256(computed[key].astype("<i8").tobytes()).hexdigest() == digest, key
    return {key: computed[key] for key in released}


@functools.cache
def abstract(name):
    return nnx.eval_shape(lambda: create_model(name))


def empty(name):
    """A model of zeros, to be filled: drawing initial weights would be wasted time."""
    graph, state = nnx.split(abstract(name))
    return nnx.merge(graph, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state))


def parameter_count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_every_model_of_the_zoo_is_known_and_the_quick_ones_are_among_them():
    assert set(ZOO_MODELS) == set(registry.reidzoo())
    assert set(QUICK) < set(ZOO_MODELS)


@every_zoo_model
def test_features_are_those_of_the_released_model(name):
    # measured on the authors' released PyTorch modules in float64 (EdgeNeXt in float32)
    features = np.load(REFERENCE / "features.npz")
    model = empty(name)
    load_state_dict(model, reference_weights(name) | constants(name, model))
    model.eval()
    graph, state = nnx.split(model)
    sizes = {"global": (256, 128), "local": (128, 64)}
    images = {view: image(view, (2, 3, *size)).transpose(0, 2, 3, 1).astype(np.float32) for view, size in sizes.items()}
    # one program for both sizes: compiling takes most of the time
    embed = compiled(lambda state, views: jax.tree.map(nnx.merge(graph, state), views))
    for view, embedding in embed(state, images).items():
        expected = features[f"{name}/{view}"]
        assert embedding.shape == (2, model.embed_dim)
        assert np.abs(embedding - expected).max() < model_info(name).parity * expected.std(), view


@pytest.mark.parametrize("name", ZOO_MODELS)
def test_parity_is_1e_4_or_what_float32_allows(name):
    own_error = reference_state_dicts()[name]["torch_float32_error"]  # of PyTorch's float32, in standard deviations
    # Rounding depends on the CPU: FastViT-SA24 was 2.504 times as far off as PyTorch on one of two that were tried.
    assert model_info(name).parity <= max(1e-4, 3 * own_error)


@pytest.mark.parametrize("name", ["resnet18_ibn", "vit_tiny", "ghostnet_0_5"])
def test_multiply_adds_are_those_xla_counts(name):
    assert gflops(name) == pytest.approx(model_info(name).xla_gflops, rel=0.01, abs=0.001)


def test_xla_counts_about_what_the_paper_counts():
    # EdgeNeXt's and ConvNeXt's GELU and normalisation take up to a fifth, which papers leave out
    for info in registry.reidzoo().values():
        assert info.xla_gflops == pytest.approx(info.gflops, rel=0.22), info.name


@every_zoo_model
def test_state_dict_has_the_released_keys_order_shapes_and_dtypes(name):
    entry = reference_state_dicts()[name]
    model = abstract(name)
    expected = [(key, tuple(shape), dtype) for key, shape, dtype in entry["state_dict"]]
    assert [(key, shape, str(dtype)) for key, (shape, dtype) in signature(model).items()] == expected
    assert parameter_count(model) == entry["params"]
    assert model.embed_dim == entry["embed_dim"]


@every_zoo_model
def test_parameters_are_those_the_paper_counts(name):
    classifier = 1000 * abstract(name).embed_dim + 1000 if name.startswith("vit") else 0  # a 1000-way fc
    millions = (parameter_count(abstract(name)) + classifier) / 1e6
    assert millions == pytest.approx(model_info(name).params_m, abs=0.011)


def training_loss(name):
    """A model's parameters, and `params -> (a loss over a batch, the running statistics after it)`."""
    graph, params, statistics = nnx.split(create_model(name), nnx.Param, nnx.BatchStat)
    # RepViT's residual branches end in a scale that starts at zero, which no gradient passes
    params = jax.tree.map(lambda leaf: jnp.where(leaf == 0, 0.1, leaf), params)
    images = jnp.asarray(image("train", (4, 64, 32, 3)), jnp.float32)

    def loss(params):
        model = nnx.merge(graph, params, statistics, copy=True)
        embedding = model(images)
        target = jnp.asarray(image("target", embedding.shape), jnp.float32)
        return jnp.sum(embedding * target), nnx.as_pure(nnx.state(model, nnx.BatchStat))

    return params, loss


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK_TO_TRAIN else pytest.mark.slow) for name in TEST_MODELS]
)
def test_every_parameter_has_a_gradient_and_compiling_changes_no_value(name):
    params, loss = training_loss(name)
    (value, statistics), gradients = compiled(jax.value_and_grad(loss, has_aux=True))(params)
    for path, gradient in nnx.to_flat_state(gradients):
        assert np.isfinite(gradient[...]).all(), path
        assert np.abs(gradient[...]).max() > 0, path
    eager_value, eager_statistics = loss(params)
    np.testing.assert_allclose(value, eager_value, rtol=1e-4, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), statistics, eager_statistics)


@pytest.mark.parametrize("name", TEST_MODELS)
@pytest.mark.parametrize("size", [(256, 128), (128, 64), (384, 128), (64, 32)])
def test_any_input_size_of_the_paper_in_any_compute_dtype(name, size):
    model = nnx.eval_shape(lambda: create_model(name, dtype=jnp.bfloat16))
    model.eval()
    images = jax.ShapeDtypeStruct((3, *size, 3), jnp.float32)
    embedding = nnx.eval_shape(lambda model, images: model(images), model, images)
    assert (embedding.shape, embedding.dtype) == ((3, model.embed_dim), jnp.bfloat16)


def test_swin_takes_any_size_and_rounds_the_feature_map_up():
    model = abstract("swin_test")
    for size, grid in (((61, 30), (2, 1)), ((65, 1), (3, 1)), ((97, 130), (4, 5))):
        features = nnx.eval_shape(lambda model, x: model.features(x), model, jnp.zeros((2, *size, 3)))
        assert features.shape == (2, *grid, model.embed_dim)


@pytest.mark.parametrize("name", TEST_MODELS)
def test_no_variable_is_weakly_typed(name):
    """The first training step would make it strong, and the second be compiled again."""
    state = nnx.eval_shape(lambda: nnx.as_pure(nnx.state(create_model(name))))
    assert not [path for path, leaf in jax.tree.leaves_with_path(state) if leaf.weak_type]


@pytest.mark.slow
@pytest.mark.parametrize("name", TEST_MODELS)
def test_bfloat16_is_float32_with_less_precision_and_float32_statistics(name):
    images = jnp.asarray(image("bfloat16", (4, 64, 32, 3)), jnp.float32)
    exact, coarse = create_model(name), create_model(name, dtype=jnp.bfloat16)
    embed = nnx.jit(lambda model, images: model(images).astype(jnp.float32))
    expected, got = np.asarray(embed(exact, images)), np.asarray(embed(coarse, images))
    assert 0 < np.abs(got - expected).max() < 0.15 * np.abs(expected).max()
    assert all(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves(nnx.state(coarse)))


@pytest.mark.slow
def test_train_and_eval_switch_the_batch_statistics():
    model = create_model("resnet_test")
    images = jnp.asarray(image("mode", (4, 64, 32, 3)), jnp.float32)
    before = model.bn1.mean[...]
    training = model(images)
    after = model.bn1.mean[...]
    assert not np.array_equal(before, after)
    model.eval()
    assert not np.allclose(model(images), training, atol=1e-3)
    np.testing.assert_array_equal(model.bn1.mean[...], after)
    # one image's embedding depends on no other image in evaluation
    np.testing.assert_allclose(model(images[:1]), model(images)[:1], atol=1e-5)


def test_ibn_stands_first_in_every_block_of_stages_one_to_three():
    paths = [".".join(map(str, path)) for path, m in nnx.iter_modules(abstract("resnet18_ibn")) if hasattr(m, "IN")]
    stages = {f"layer{stage}.layers.{block}.bn1" for stage in (1, 2, 3) for block in (0, 1)}
    assert set(paths) == stages


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    def first_kernel(**settings):
        return np.asarray(create_model("resnet_test", **settings).conv1.kernel[...])

    np.testing.assert_array_equal(first_kernel(), first_kernel(rngs=nnx.Rngs(0)))
    assert not np.array_equal(first_kernel(), first_kernel(rngs=nnx.Rngs(1)))


def test_settings_can_be_overridden():
    def map_size(**settings):
        model = nnx.eval_shape(lambda: create_model("resnet_test", **settings))
        return nnx.eval_shape(lambda model, x: model.features(x), model, jnp.zeros((1, 64, 32, 3))).shape

    assert map_size(last_stride=2) == (1, 2, 1, 192)
    assert map_size() == (1, 4, 2, 192)


def test_patterns_list_models():
    assert list_models("resnet*_ibn") == ["resnet18_ibn", "resnet50_ibn", "resnet101_ibn", "resnet152_ibn"]
    assert list_models("nothing*") == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_model("resnet50_inb"), r"unknown model 'resnet50_inb', did you mean resnet50_ibn"),
        (lambda: create_model("volo_test")(jnp.zeros((1, 32, 8, 3))), r"\(32, 8\) hold no 16x16 patch"),
        (
            lambda: create_model("resnet_test", last_strid=2),
            r"no setting 'last_strid', did you mean last_stride",
        ),
        (
            lambda: model_info("swin_tin"),
            r"'swin_tin' is not one of ReIDZoo's models, did you mean swin_tiny",
        ),
        (lambda: create_model("vit_test")(jnp.zeros((1, 8, 32, 3))), r"\(8, 32\) hold no 16x16 patch"),
        (lambda: create_model("convnext_test")(jnp.zeros((1, 16, 64, 3))), r"too small for stride 32"),
        (lambda: create_model("resnet_test")(jnp.zeros((1, 3, 64, 32))), r"move the channels last"),
        (lambda: create_model("vit_test")(jnp.zeros((1, 64, 32, 3), jnp.uint8)), r"got uint8.*normalise"),
    ],
)
def test_wrong_use_raises_an_error_with_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_two_families_may_not_share_a_name(monkeypatch):
    monkeypatch.setattr(registry, "FAMILIES", {"resnet": "ResNet", "vit": "ViT"})
    monkeypatch.setattr("cion_jax.models.vit.MODELS", {"resnet50": None})
    registry._table.cache_clear()
    try:
        with pytest.raises(ValueError, match="two families define 'resnet50': ResNet and ViT"):
            list_models()
    finally:
        registry._table.cache_clear()


@every_zoo_model
def test_zoo_facts_agree_with_the_released_checkpoints(name):
    info = model_info(name)
    assert info.prefix == reference_state_dicts()[name]["prefix"]
    has_batch_norm = any(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(abstract(name)))
    assert info.prefix == ("module.backbone." if has_batch_norm else "backbone.")
    assert 0 < info.msmt_map < info.market_map < info.market_rank1 < 100
