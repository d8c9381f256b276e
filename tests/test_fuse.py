"""Fused models: the same embeddings from fewer parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax.conversion import load_state_dict, signature, state_dict
from cion_jax.models import create_model, list_models
from cion_jax.models.fuse import fold, fold_behind, fuse, identity, parallel, scale
from cion_jax.models.layers import IBN, BatchNorm, Conv, InstanceNorm, Linear
from cion_jax.models.neck import BNNeck
from tests.networks import compiled, trained
from tests.refweights import image

TEST_MODELS = list_models("*_test")
WITHOUT_BATCH_NORM = [name for name in TEST_MODELS if name.startswith(("convnext", "edgenext", "swin"))]
FUSIBLE = [name for name in TEST_MODELS if name not in WITHOUT_BATCH_NORM]
QUICK = ("repvit_test", "resnet_ibn_test")


def embed(model, height=64, width=32):
    graph, state = nnx.split(model)
    images = jnp.asarray(image("fuse", (2, height, width, 3)), jnp.float32)
    return np.asarray(compiled(lambda state, images: nnx.merge(graph, state)(images))(state, images))


def parameters(model):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def assert_same_tensors(got, expected):
    assert list(got) == list(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(got[key], array, err_msg=key)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def norm_of(features, seed=0):
    norm = BatchNorm(features)
    for index, variable in enumerate((norm.scale, norm.bias, norm.mean)):
        variable.set_value(normal(seed + index, features))
    norm.var.set_value(0.3 + jnp.square(normal(seed + 3, features)))
    norm.eval()
    return norm


def conv_of(size, stride=1, groups=1, features=8, out=8, use_bias=True):
    padding, rngs = size // 2, nnx.Rngs(size)
    return Conv(features, out, size, stride=stride, padding=padding, groups=groups, use_bias=use_bias, rngs=rngs)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in (*FUSIBLE, "repvit_m0_9", "fastvit_s12", "ghostnet_0_5")
    ],
)
def test_fused_model_embeds_the_same_with_fewer_parameters(name):
    model = trained(name)
    fused = fuse(model)
    expected = embed(model)
    assert np.abs(embed(fused) - expected).max() < 1e-4 * expected.std()
    assert parameters(fused) < parameters(model)
    assert type(fused) is type(model)
    # the fused model has tensors of its own names, all there and in order
    arrays = state_dict(fused)
    assert [(key, array.shape) for key, array in arrays.items()] == [(k, s) for k, (s, _) in signature(fused).items()]
    load_state_dict(fused, arrays)


@pytest.mark.parametrize("name", FUSIBLE)
def test_no_normalisation_is_left_but_of_images(name):
    fused = fuse(create_model(name))
    left = {path for path, module in nnx.iter_modules(fused) if isinstance(module, BatchNorm)}
    of_ibn = {(*path, "BN") for path, module in nnx.iter_modules(fused) if isinstance(module, IBN)}
    assert left == of_ibn


@pytest.mark.parametrize("name", ["repvit_test", "fastvit_test", "resnet_ibn_test"])
def test_the_original_stays_as_it_was(name):
    model = trained(name)
    model.train()
    before = state_dict(model)
    fused = fuse(model)
    for leaf in jax.tree.leaves(nnx.state(fused), is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)):
        leaf.set_value(jnp.zeros_like(leaf.get_value()))
    assert_same_tensors(state_dict(model), before)
    assert all(not m.use_running_average for _, m in nnx.iter_modules(model) if isinstance(m, BatchNorm))


def test_fused_repvit_has_the_names_of_the_released_fused_one():
    keys = list(state_dict(fuse(create_model("repvit_test"))))
    assert keys[:4] == ["features.0.0.weight", "features.0.0.bias", "features.0.2.weight", "features.0.2.bias"]
    block = [key for key in keys if key.startswith("features.2.")]
    layers = ("token_mixer.0", "channel_mixer.m.0", "channel_mixer.m.2")
    assert block == [f"features.2.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]


@pytest.mark.parametrize("name", WITHOUT_BATCH_NORM)
def test_a_model_with_nothing_to_fold_is_copied(name):
    model = trained(name)
    fused = fuse(model)
    assert fused is not model
    assert_same_tensors(state_dict(fused), state_dict(model))


def test_fusing_twice_changes_nothing():
    once = fuse(trained("fastvit_test"))
    assert_same_tensors(state_dict(fuse(once)), state_dict(once))


def test_a_neck_stays_behind_its_fused_backbone():
    model = BNNeck(create_model("resnet_test"))
    model.bottleneck = norm_of(model.embed_dim)
    fused = fuse(model)
    assert not any(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(fused.base))
    features = normal(0, 2, 4, 2, model.embed_dim)
    np.testing.assert_allclose(fused.pool(features), model.pool(features), atol=1e-5)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(("stride", "groups", "out"), [(1, 1, 8), (2, 8, 16), (1, 2, 8)])
def test_batch_norm_folds_into_a_convolution(stride, groups, out, use_bias):
    conv, norm, x = conv_of(3, stride, groups, out=out, use_bias=use_bias), norm_of(out), normal(9, 2, 7, 6, 8)
    np.testing.assert_allclose(fold(conv, norm)(x), norm(conv(x)), atol=2e-5)
    assert (conv.bias is None) == (not use_bias)


@pytest.mark.parametrize("use_bias", [True, False])
def test_batch_norm_folds_into_a_projection_behind_or_before_it(use_bias):
    linear, x = Linear(6, 4, use_bias=use_bias, rngs=nnx.Rngs(0)), normal(9, 5, 6)
    np.testing.assert_allclose(fold(linear, norm_of(4))(x), norm_of(4)(linear(x)), atol=2e-5)
    np.testing.assert_allclose(fold_behind(norm_of(6), linear)(x), linear(norm_of(6)(x)), atol=2e-5)


def test_scales_and_identities_of_convolutions():
    x, factor = normal(9, 2, 7, 6, 8), normal(1, 8)
    conv = conv_of(3)
    np.testing.assert_allclose(scale(conv, factor)(x), factor * conv(x), atol=1e-5)
    for groups in (1, 2, 8):
        np.testing.assert_array_equal(identity(conv_of(3, groups=groups))(x), x)
        np.testing.assert_allclose(identity(conv_of(3, groups=groups), norm_of(8))(x), norm_of(8)(x), atol=1e-5)


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 8), (2, 8)])
@pytest.mark.parametrize("shape", [(7, 6), (8, 4), (1, 2)])
def test_parallel_convolutions_are_one(stride, groups, shape):
    branches, x = [conv_of(size, stride, groups) for size in (1, 7, 3)], normal(9, 2, *shape, 8)
    merged = parallel(*branches)
    assert merged.kernel.shape[:2] == (7, 7)
    np.testing.assert_allclose(merged(x), sum(branch(x) for branch in branches), atol=1e-5)


def test_instance_norm_is_not_taken_for_a_batch_norm():
    pair = nnx.Sequential(conv_of(3), InstanceNorm(8))
    assert isinstance(fuse(pair).layers[1], InstanceNorm)
