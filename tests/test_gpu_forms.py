"""Forms that are traced for GPUs compute and differentiate the same as XLA's own, checked on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax.models.backend.attention import padded
from cion_jax.models.backend.broadcast import spread
from cion_jax.models.backend.convolution import convolve
from cion_jax.models.backend.pooling import max_pool
from cion_jax.models.layers import BatchNorm, gelu
from cion_jax.runtime.platform import traced_for


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def assert_same(ours, theirs, *arguments, atol=2e-6):
    """Values and gradients of two functions agree."""
    cotangent = normal(9, *jax.eval_shape(theirs, *arguments).shape)
    for a, b in zip(*(jax.tree.leaves(_with_gradients(f, arguments, cotangent)) for f in (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol * float(jnp.abs(b).max()))


def _with_gradients(function, arguments, cotangent):
    value, backward = jax.vjp(jax.jit(function), *arguments)
    return value, backward(cotangent)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "depthwise"),
    [(7, 1, 3, True), (9, 1, 4, True), (5, 2, 2, True), (4, 4, 0, False), (2, 2, 0, False)],
)
def test_kernel_gradients_as_products_are_those_of_xla(size, stride, padding, depthwise):
    x = normal(0, 3, 9, 4, 6)
    kernel, groups = normal(1, size, size, *((1, 6) if depthwise else (6, 5))), 6 if depthwise else 1

    def standard(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
        )  # fmt: skip

    with traced_for("cuda"):
        assert_same(lambda x, kernel: convolve(x, kernel, stride, padding, groups), standard, x, kernel)


def test_the_gradient_of_a_maximum_goes_to_the_first_of_equal_values():
    x = nnx.relu(normal(0, 2, 9, 11, 4))  # half of it zeros
    with traced_for("cuda"):
        assert_same(
            lambda x: max_pool(x, 3, 2), lambda x: nnx.max_pool(x, window_shape=(3, 3), strides=(2, 2)), x, atol=0
        )


@pytest.mark.parametrize("tokens", [8, 9])
def test_padded_attention_is_attention(tokens):
    q, k, v = (normal(seed, 2, tokens, 3, 8) for seed in range(3))
    assert_same(lambda *x: padded(*x, "xla"), jax.nn.dot_product_attention, q, k, v)


def test_gelu_and_its_derivative_are_those_of_jax():
    x = jnp.linspace(-8, 8, 1001)
    assert_same(gelu, lambda x: jax.nn.gelu(x, approximate=False), x)
    low = gelu(x.astype(jnp.bfloat16))
    exact = jax.nn.gelu(x.astype(jnp.bfloat16).astype(jnp.float32), approximate=False)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6)


def test_the_gradient_of_a_spread_parameter_is_summed_in_float32():
    rows = 20_000
    gradient = jax.grad(lambda bias: (spread(bias, (rows, 2), jnp.bfloat16) * jnp.bfloat16(1.0)).sum())(jnp.zeros(2))
    np.testing.assert_array_equal(gradient, [rows, rows])  # bfloat16 ends at 256: 257 is not one of its numbers
    program = str(jax.make_jaxpr(jax.grad(lambda b: spread(b, (rows, 2), jnp.bfloat16).sum()))(jnp.zeros(2)))
    assert "bf16[2] = reduce_sum" not in program


def test_batch_norm_is_exact_where_the_mean_is_large():
    x = 1000 + np.asarray(normal(0, 64, 4, 4, 3), np.float64)
    y = BatchNorm(3)(jnp.asarray(x, jnp.float32))
    x = np.float64(np.float32(x))  # what float32 holds of it
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=2e-4)  # the mean itself is rounded to 6e-5
