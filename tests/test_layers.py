"""Shared layers against PyTorch and XLA."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from cion_jax.models import repvit
from cion_jax.models.backend.compiler import materialised
from cion_jax.models.backend.convolution import convolve
from cion_jax.models.layers import (
    IBN,
    MLP,
    Attention,
    BatchNorm,
    Conv,
    DropPath,
    LayerNorm,
    Linear,
    kaiming_normal_fan_out,
)
from cion_jax.models.squeeze_excite import squeeze_excite
from cion_jax.models.vit import resize_position_embedding
from cion_jax.models.volo import fold, unfold
from cion_jax.runtime.platform import traced_for


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def to_torch(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def from_torch(images):
    return images.detach().numpy().transpose(0, 2, 3, 1)


# image height, width, channels in, channels out, kernel, stride, padding, groups
CONVOLUTIONS = {
    "3x3": (17, 13, 5, 6, 3, 1, 1, 1),
    "3x3, stride 2, odd size": (21, 18, 5, 6, 3, 2, 1, 1),
    "3x3, small map": (4, 2, 5, 6, 3, 1, 1, 1),
    "7x7 stem": (33, 20, 3, 8, 7, 2, 3, 1),
    "1x1": (9, 7, 6, 4, 1, 1, 0, 1),
    "1x1, stride 2": (9, 7, 6, 4, 1, 2, 0, 1),
    "2x2 patches, a row left over": (9, 7, 6, 4, 2, 2, 0, 1),
    "8x8 patches": (16, 24, 3, 5, 8, 8, 0, 1),
    "kernel smaller than stride": (11, 10, 3, 5, 2, 3, 1, 1),
    "depthwise 7x7": (9, 11, 6, 6, 7, 1, 3, 6),
    "depthwise 3x3, stride 2, even size": (12, 10, 6, 6, 3, 2, 1, 6),
    "depthwise 3x3, stride 2, odd size": (11, 9, 6, 6, 3, 2, 1, 6),
    "depthwise 7x7 with two outputs a channel, stride 2": (12, 10, 6, 12, 7, 2, 3, 6),
    "depthwise 3x3 with three outputs a channel": (9, 7, 4, 12, 3, 1, 1, 4),
    "depthwise 5x5, stride 2, even size": (12, 10, 6, 6, 5, 2, 2, 6),
    "depthwise 9x9 on a smaller map": (4, 2, 6, 6, 9, 1, 4, 6),
    "depthwise 2x2, stride 3": (12, 10, 6, 6, 2, 3, 0, 6),
    "depthwise 3x3, stride 3, rows left over": (12, 10, 6, 6, 3, 3, 1, 6),
    "two groups": (9, 7, 6, 8, 3, 1, 1, 2),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution_and_gradients_are_those_of_xla(case):
    h, w, c, out, size, stride, padding, groups = CONVOLUTIONS[case]
    x, kernel = jnp.asarray(normal(0, 2, h, w, c)), jnp.asarray(normal(1, size, size, c // groups, out))

    def reference(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(function, cotangent):
        value, vjp = jax.vjp(function, x, kernel)
        return value, *vjp(cotangent)

    cotangent = jnp.asarray(normal(2, *jax.eval_shape(reference, x, kernel).shape))
    expected = value_and_gradients(reference, cotangent)
    got = value_and_gradients(lambda x, kernel: convolve(x, kernel, stride, padding, groups), cotangent)
    for value, reference_value in zip(got, expected, strict=True):
        atol = 2e-6 * np.abs(reference_value).max()
        np.testing.assert_allclose(value, reference_value, rtol=0, atol=atol)


def test_convolution_can_be_vmapped_and_computes_in_the_dtype_of_its_input():
    x, kernel = jnp.asarray(normal(0, 3, 2, 12, 12, 4)), jnp.asarray(normal(1, 3, 3, 4, 4))
    mapped = jax.jit(jax.vmap(lambda x: convolve(x, kernel, 1, 1)))(x)
    np.testing.assert_allclose(mapped[1], convolve(x[1], kernel, 1, 1), atol=1e-5)
    assert Conv(4, 4, 3, padding=1, rngs=nnx.Rngs(0))(x[0].astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(("platform", "standard"), [("cuda", True), ("cpu", False)])
def test_a_convolution_is_traced_for_the_platform_that_is_named(platform, standard):
    x, kernel = jnp.zeros((1, 9, 9, 8)), jnp.zeros((3, 3, 1, 8))
    with traced_for(platform):
        program = str(jax.make_jaxpr(lambda x, kernel: convolve(x, kernel, 1, 1, 8))(x, kernel))
    assert ("conv_general_dilated" in program) == standard


@pytest.mark.usefixtures("optimised")
def test_the_arithmetic_of_a_chain_of_blocks_grows_with_their_number_alone():
    def arithmetic(depth):
        blocks = nnx.Sequential(*(repvit.Block(8, squeeze=index % 2 == 0, rngs=nnx.Rngs(0)) for index in range(depth)))
        blocks.eval()
        graph, state = nnx.split(blocks)
        program = jax.jit(lambda state, x: nnx.merge(graph, state)(x)).lower(state, jnp.ones((1, 8, 8, 8)))
        return program.compile().cost_analysis()["flops"]

    assert arithmetic(8) <= 4.02 * arithmetic(2)  # XLA left to itself: 7 times


def test_materialising_changes_neither_value_nor_gradient():
    x = jnp.asarray([jnp.nan, -0.0, 2.0])
    np.testing.assert_array_equal(np.signbit(materialised(x)), np.signbit(x))
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(materialised(x) ** 2))(x[1:])
    assert value == 4
    np.testing.assert_array_equal(gradient, [0, 4])
    np.testing.assert_array_equal(jax.vmap(materialised)(x[1:]), x[1:])


def test_batch_norm_follows_pytorch_over_training_steps_and_in_evaluation():
    ours, theirs = BatchNorm(6), torch.nn.BatchNorm2d(6)
    scale, bias = normal(0, 6), normal(1, 6)
    ours.scale.set_value(jnp.asarray(scale))
    ours.bias.set_value(jnp.asarray(bias))
    theirs.weight.data, theirs.bias.data = torch.from_numpy(scale), torch.from_numpy(bias)
    for step in range(4):
        x = 3 + 2 * normal(10 + step, 3, 4, 2, 6)
        np.testing.assert_allclose(ours(jnp.asarray(x)), from_torch(theirs(to_torch(x))), atol=1e-5)
        np.testing.assert_allclose(ours.mean[...], theirs.running_mean, atol=1e-6)
        np.testing.assert_allclose(ours.var[...], theirs.running_var, rtol=1e-6)
        assert int(ours.num_batches_tracked[...]) == step + 1
    ours.eval(), theirs.eval()
    x = normal(9, 2, 4, 2, 6)
    np.testing.assert_allclose(ours(jnp.asarray(x)), from_torch(theirs(to_torch(x))), atol=1e-5)
    assert ours.num_batches_tracked[...] == 4


def test_batch_norm_gradient_is_pytorchs():
    x, cotangent = 1 + normal(0, 3, 4, 2, 6), normal(1, 3, 4, 2, 6)
    graph, state = nnx.split(BatchNorm(6))
    _, vjp = jax.vjp(jax.jit(lambda x: nnx.merge(graph, state, copy=True)(x)), jnp.asarray(x))
    leaf = to_torch(x).requires_grad_()
    torch.nn.BatchNorm2d(6)(leaf).backward(to_torch(cotangent))
    np.testing.assert_allclose(vjp(jnp.asarray(cotangent))[0], from_torch(leaf.grad), atol=1e-5)


def test_batch_norm_over_eight_devices_is_batch_norm_over_the_whole_batch():
    x, cotangent = jnp.asarray(2 + normal(0, 16, 3, 2, 4)), jnp.asarray(normal(1, 16, 3, 2, 4))

    def run(norm, x, cotangent):
        graph, state = nnx.split(norm)

        def apply(x):
            norm = nnx.merge(graph, state, copy=True)
            return norm(x), nnx.as_pure(nnx.state(norm, nnx.BatchStat))

        y, vjp, statistics = jax.vjp(apply, x, has_aux=True)
        return y, vjp(cotangent)[0], statistics

    whole, spread = BatchNorm(4), BatchNorm(4)
    spread.set_attributes(axis_name="data", raise_if_not_found=False)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    data = PartitionSpec("data")
    sharded = jax.shard_map(
        lambda x, cotangent: run(spread, x, cotangent),
        mesh=mesh,
        in_specs=(data, data),
        out_specs=(data, data, PartitionSpec()),
        check_vma=False,
    )
    expected = jax.jit(lambda x, cotangent: run(whole, x, cotangent))(x, cotangent)
    got = jax.jit(sharded)(x, cotangent)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), got, expected)


def test_batch_norm_of_one_value_per_channel_is_refused():
    with pytest.raises(ValueError, match=r"one value per channel.*larger batch"):
        BatchNorm(4)(jnp.ones((1, 1, 1, 4)))


def test_only_batch_norm_takes_an_axis_name():
    for layer in (LayerNorm(4), IBN(4).IN, Linear(4, 4, rngs=nnx.Rngs(0)), Conv(4, 4, 1, rngs=nnx.Rngs(0))):
        assert not hasattr(layer, "axis_name")


@pytest.mark.parametrize("features", [8, 7])
def test_ibn_is_instance_norm_beside_batch_norm(features):
    x = 1 + normal(0, 3, 5, 4, features)
    half = features // 2
    images = to_torch(x)
    parts = [
        torch.nn.InstanceNorm2d(half)(images[:, :half]),
        torch.nn.BatchNorm2d(features - half)(images[:, half:]),
    ]
    np.testing.assert_allclose(IBN(features)(jnp.asarray(x)), from_torch(torch.cat(parts, 1)), atol=1e-5)


def test_attention_and_mlp_are_pytorchs():
    x = normal(0, 2, 5, 12)
    attention, mlp = Attention(12, 3, rngs=nnx.Rngs(0)), MLP(12, 20, rngs=nnx.Rngs(1))
    reference = torch.nn.TransformerEncoderLayer(12, 3, 20, 0.0, "gelu", batch_first=True).eval()
    torch_attention = reference.self_attn
    with torch.no_grad():
        torch_attention.in_proj_weight.copy_(torch.from_numpy(np.array(attention.qkv.kernel[...].T)))
        torch_attention.in_proj_bias.copy_(torch.from_numpy(np.array(attention.qkv.bias[...])))
        for theirs, ours in (
            (torch_attention.out_proj, attention.proj),
            (reference.linear1, mlp.fc1),
            (reference.linear2, mlp.fc2),
        ):
            theirs.weight.copy_(torch.from_numpy(np.array(ours.kernel[...].T)))
            theirs.bias.copy_(torch.from_numpy(np.array(ours.bias[...])))
        tokens = torch.from_numpy(x)
        expected = torch_attention(tokens, tokens, tokens, need_weights=False)[0]
        expected_mlp = reference.linear2(torch.nn.functional.gelu(reference.linear1(tokens)))
    np.testing.assert_allclose(attention(jnp.asarray(x)), expected, atol=1e-5)
    np.testing.assert_allclose(mlp(jnp.asarray(x)), expected_mlp, atol=1e-5)


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    layer, x = DropPath(0.25, index=3), jnp.asarray(1 + np.abs(normal(0, 4000, 2, 3)))
    keys = jax.random.split(jax.random.key(0), len(x))
    assert layer(x) is x
    assert not jax.tree.leaves(nnx.state(layer))
    layer = nnx.merge(*nnx.split(layer))
    layer.set_attributes(sample_keys=keys)
    y = np.asarray(layer(x))
    kept = y[:, 0, 0] > 0
    np.testing.assert_allclose(y, np.where(kept[:, None, None], x / 0.75, 0), rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 0.02  # three standard deviations
    np.testing.assert_allclose(y.mean((0, 1)), x.mean((0, 1)), rtol=0.04)
    assert layer(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_drop_path_depends_on_an_images_key_and_the_branch_alone():
    x, keys = jnp.ones((64, 2)), jax.random.split(jax.random.key(0), 64)

    def dropped(rate, index, keys, x):
        layer = DropPath(rate, index)
        layer.set_attributes(sample_keys=keys)
        return np.asarray(layer(x))

    whole = dropped(0.5, 0, keys, x)
    np.testing.assert_array_equal(dropped(0.5, 0, keys[48:][::-1], x[48:]), whole[48:][::-1])
    assert 0.2 < (dropped(0.5, 1, keys, x) != whole)[:, 0].mean() < 0.8
    np.testing.assert_array_equal(dropped(0.0, 0, keys, x), x)


@pytest.mark.parametrize(("h", "w"), [(8, 4), (7, 5), (1, 2)])
def test_outlook_windows_are_those_of_pytorchs_unfold_and_fold(h, w):
    x = normal(0, 2, h, w, 3)
    rows, columns = math.ceil(h / 2), math.ceil(w / 2)
    windows = torch.nn.functional.unfold(to_torch(x), 3, padding=1, stride=2)  # [b, c * 9, windows]
    expected = windows.reshape(2, 3, 9, rows, columns).permute(0, 3, 4, 2, 1).numpy()
    np.testing.assert_array_equal(unfold(jnp.asarray(x)), expected)
    folded = torch.nn.functional.fold(windows, (h, w), 3, padding=1, stride=2)
    np.testing.assert_allclose(fold(jnp.asarray(expected), x.shape), from_torch(folded), atol=1e-6)


def test_squeeze_excite_is_pytorchs():
    x = 1 + normal(0, 2, 5, 4, 6)
    reduce, expand = Conv(6, 3, 1, rngs=nnx.Rngs(0)), Conv(3, 6, 1, rngs=nnx.Rngs(1))
    modules = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Conv2d(6, 3, 1), torch.nn.ReLU(), torch.nn.Conv2d(3, 6, 1)
    for theirs, ours in ((modules[1], reduce), (modules[3], expand)):
        theirs.weight.data = torch.from_numpy(np.array(ours.kernel[...].transpose(3, 2, 0, 1)))
        theirs.bias.data = torch.from_numpy(np.array(ours.bias[...]))
    expected = to_torch(x) * torch.nn.Sequential(*modules, torch.nn.Hardsigmoid())(to_torch(x))
    got = squeeze_excite(jnp.asarray(x), reduce, expand, jax.nn.hard_sigmoid)
    np.testing.assert_allclose(got, from_torch(expected), atol=1e-5)


# 256x128 -> 384x128, 128x64, 256x128 with half the width, and a grid larger one way and smaller the other
@pytest.mark.parametrize("new_grid", [(24, 8), (8, 4), (16, 4), (11, 13), (1, 1)])
def test_position_embedding_is_resized_as_pytorch_does(new_grid):
    grid = (16, 8)
    embedding = normal(0, 1, 1 + 16 * 8, 6)
    patches = torch.from_numpy(embedding[:, 1:].reshape(1, *grid, 6)).permute(0, 3, 1, 2).double()
    scale = tuple((new + 0.1) / old for new, old in zip(new_grid, grid))
    expected = torch.nn.functional.interpolate(patches, scale_factor=scale, mode="bicubic")
    assert expected.shape[2:] == new_grid
    got = np.asarray(resize_position_embedding(jnp.asarray(embedding), grid, new_grid))
    np.testing.assert_array_equal(got[:, 0], embedding[:, 0])
    np.testing.assert_allclose(got[:, 1:].reshape(1, *new_grid, 6), from_torch(expected), atol=1e-5)


def test_position_embedding_of_its_own_grid_is_untouched():
    embedding = jnp.asarray(normal(0, 1, 1 + 16 * 8, 6))
    assert resize_position_embedding(embedding, (16, 8), (16, 8)) is embedding


@pytest.mark.parametrize("size", [1, 3])
def test_initial_weights_are_distributed_as_pytorchs(size):
    theirs = torch.nn.Conv2d(64, 96, size)
    ours = Conv(64, 96, size, rngs=nnx.Rngs(0))
    for values, reference in ((ours.kernel[...], theirs.weight), (ours.bias[...], theirs.bias)):
        bound = 1 / np.sqrt(64 * size * size)
        assert float(reference.detach().abs().max()) <= bound  # what PyTorch draws is uniform within this bound
        assert 0.95 * bound < np.abs(values).max() <= bound
        np.testing.assert_allclose(values.std(), bound / np.sqrt(3), rtol=0.15)


def test_a_tensor_has_the_numbers_of_a_larger_one_whatever_block_they_come_from():
    key = jax.random.key(3)
    small, large = (kaiming_normal_fan_out(key, (1, 1, rows, 64)) for rows in (64, 65))  # 4,096 numbers, and more
    np.testing.assert_array_equal(small, large[:, :, :64])
