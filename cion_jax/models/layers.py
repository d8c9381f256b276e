"""Layers that model families share, with PyTorch's semantics and default initialisation.

Parameters are float32. Every layer computes in the dtype of its input, so a backbone chooses the compute
dtype by casting its images; statistics (means, variances, softmax) stay in float32 at least.

Axes: b batch, h height, w width, n tokens, c channels.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.core import Tracer

from cion_jax.models.backend.attention import attend
from cion_jax.models.backend.batch_norm import normalize_batch
from cion_jax.models.backend.broadcast import spread
from cion_jax.models.backend.compiler import materialised
from cion_jax.models.backend.convolution import convolve
from cion_jax.models.backend.gelu import gelu

Initializer = Callable[[jax.Array, tuple[int, ...]], jax.Array]

# Weights are drawn in blocks of this size and scaled and shaped by NumPy, so that one compiled program serves tensors
# of every shape: XLA would take seconds to compile a model's few dozen. What fits the small block is drawn as one of
# those: its numbers are the first of the large one.
_BLOCK, _SMALL_BLOCK = 2**18, 2**12

_uniform_block = jax.jit(lambda key, size: jax.random.uniform(key, (size,), minval=-1.0), static_argnums=1)
_normal_block = jax.jit(lambda key, size: jax.random.normal(key, (size,)), static_argnums=1)


def _draw(
    block: Callable[[jax.Array, int], jax.Array], key: jax.Array, shape: tuple[int, ...]
) -> np.ndarray | jax.Array:
    count = math.prod(shape)
    size = _SMALL_BLOCK if count <= _SMALL_BLOCK else _BLOCK
    blocks = [block(jax.random.fold_in(key, index), size) for index in range(math.ceil(count / size))]
    numpy = jnp if isinstance(key, Tracer) else np
    return numpy.concatenate(blocks)[:count].reshape(shape)


def _uniform(key: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    return jnp.asarray(_draw(_uniform_block, key, shape) * (1 / np.float32(math.sqrt(fan_in))))


def torch_uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """PyTorch's default for kernels `[..., in, out]`: uniform within 1 / sqrt(fan_in)."""
    return _uniform(key, shape, fan_in=math.prod(shape[:-1]))


def kaiming_normal_fan_out(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Normal with variance 2 / fan_out, for convolution kernels `[size, size, in, out]`."""
    return jnp.asarray(_draw(_normal_block, key, shape) * math.sqrt(2 / (shape[0] * shape[1] * shape[3])))


def truncated_normal_02(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Normal with standard deviation 0.02; the released ViT cuts it at 2, a hundred deviations away."""
    return jnp.asarray(0.02 * _draw(_normal_block, key, shape))


def _kernel_and_bias(shape: tuple[int, ...], use_bias: bool, kernel_init: Initializer | None, rngs: nnx.Rngs):
    """A kernel `[..., in, out]` and its bias: both PyTorch's, or `kernel_init` and zeros; `nnx.data(None)` for none."""
    kernel = nnx.Param((kernel_init or torch_uniform)(rngs.params(), shape))
    if not use_bias:
        return kernel, nnx.data(None)
    if kernel_init:
        return kernel, nnx.Param(jnp.zeros(shape[-1]))
    return kernel, nnx.Param(_uniform(rngs.params(), shape[-1:], fan_in=math.prod(shape[:-1])))


class Conv(nnx.Module):
    """2-D convolution `[b, h, w, c] -> [b, h', w', out]`, square kernel, zero padding; see `convolve`.

    PyTorch's initialisation, or `kernel_init` and zero bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        use_bias: bool = True,
        kernel_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, in_features // groups, out_features)
        self.kernel, self.bias = _kernel_and_bias(shape, use_bias, kernel_init, rngs)
        self.stride, self.padding, self.groups = stride, padding, groups

    def __call__(self, x: jax.Array) -> jax.Array:
        x = convolve(x, self.kernel[...].astype(x.dtype), self.stride, self.padding, self.groups)
        return x if self.bias is None else x + spread(self.bias[...], x.shape, x.dtype)


def conv_before_norm(
    in_features: int,
    out_features: int,
    kernel_size: int,
    stride: int = 1,
    *,
    groups: int = 1,
    kernel_init: Initializer | None = None,
    rngs: nnx.Rngs,
) -> Conv:
    """A convolution of odd size that keeps the map's size up to its stride, without the bias that a norm takes away."""
    return Conv(
        in_features,
        out_features,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        use_bias=False,
        kernel_init=kernel_init,
        rngs=rngs,
    )


class Linear(nnx.Module):
    """`y = x W + b`, `[..., in] -> [..., out]`; PyTorch's initialisation, or `kernel_init` and zero bias."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        kernel_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        self.kernel, self.bias = _kernel_and_bias((in_features, out_features), use_bias, kernel_init, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x @ self.kernel[...].astype(x.dtype)
        return x if self.bias is None else x + spread(self.bias[...], x.shape, x.dtype)


def _normalize(x: jax.Array, mean: jax.Array, variance: jax.Array, layer) -> jax.Array:
    """`(x - mean) / sqrt(variance + epsilon) * scale + bias`, computed in float32, in the dtype of `x`."""
    factor = lax.rsqrt(variance + layer.epsilon) * layer.scale[...]
    return ((x - mean) * factor + layer.bias[...]).astype(x.dtype)


def _moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over `axes`, in float32 at least, kept as axes of size one."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = jnp.mean(x, axes, keepdims=True)
    return mean, jnp.mean(jnp.square(x - mean), axes, keepdims=True)


class LayerNorm(nnx.Module):
    """Normalises the channels of every position, `[..., c]`.

    Not `nnx.LayerNorm`: that has an `axis_name`, which `model.set_attributes(axis_name=...)`, meant for
    `BatchNorm`, would set as well, and positions of different devices would be averaged together.
    """

    def __init__(self, features: int, *, epsilon: float = 1e-6):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        return _normalize(x, *_moments(x, (-1,)), self)


class InstanceNorm(nnx.Module):
    """Normalises every channel of every image by itself, `[b, h, w, c]`, in training and evaluation alike."""

    def __init__(self, features: int, *, epsilon: float = 1e-5):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        return _normalize(x, *_moments(x, (1, 2)), self)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, `[..., c]`, with PyTorch's running statistics.

    In training (`model.train()`) with N values per channel:

        y = (x - E[x]) / sqrt(Var[x] + epsilon) * scale + bias         Var is the biased variance
        mean <- (1 - momentum) mean + momentum E[x]
        var  <- (1 - momentum) var  + momentum Var[x] N / (N - 1)      kept unbiased

    and `num_batches_tracked` counts the batches. In evaluation (`model.eval()`), `mean` and `var` are used.

    `axis_name` names a mesh axis over which E and Var are taken as well (inside `shard_map`), so that N
    counts the values on all its devices; set it after construction with
    `model.set_attributes(axis_name="data", raise_if_not_found=False)`. Unlike `nnx.BatchNorm`, whose running
    variance is biased and whose momentum is the complement of PyTorch's.
    """

    def __init__(self, features: int, *, epsilon: float = 1e-5, momentum: float = 0.1):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.num_batches_tracked = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.epsilon, self.momentum = epsilon, momentum
        self.axis_name: str | None = None
        self.use_running_average = False

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.use_running_average:
            return _normalize(x, self.mean[...], self.var[...], self)
        count = self._count(x)
        y, mean, variance = normalize_batch(
            x, self.scale[...], self.bias[...], self.mean[...], self.epsilon, self.axis_name
        )
        self._update(mean, variance * (count / (count - 1)))
        return y

    def _count(self, x: jax.Array) -> int:
        """The number of values per channel, on all devices."""
        devices = 1 if self.axis_name is None else lax.axis_size(self.axis_name)
        count = devices * (x.size // x.shape[-1])
        if count < 2:
            raise ValueError(
                f"BatchNorm in training got one value per channel (input {x.shape}): it has no variance; "
                "use a larger batch or larger images, or model.eval()"
            )
        return count

    def _update(self, mean: jax.Array, unbiased_variance: jax.Array) -> None:
        # set_value, not [...]: under tracing the latter inspects the sharding, at a cost that grows with the
        # square of the program.
        for running, batch in ((self.mean, mean), (self.var, unbiased_variance)):
            batch = lax.stop_gradient(batch).astype(running.dtype)
            running.set_value((1 - self.momentum) * running.get_value() + self.momentum * batch)
        self.num_batches_tracked.set_value(self.num_batches_tracked.get_value() + 1)


class IBN(nnx.Module):
    """IBN-a: instance normalisation of the first half of the channels, batch normalisation of the rest.

    "Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net" (ECCV 2018).
    """

    def __init__(self, features: int):
        self.half = features // 2
        self.IN = InstanceNorm(self.half)
        self.BN = BatchNorm(features - self.half)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([self.IN(x[..., : self.half]), self.BN(x[..., self.half :])], axis=-1)


class DropPath(nnx.Module):
    """Stochastic depth: drops a residual branch for some of the images, `[b, ...] -> [b, ...]`.

        y = x / (1 - rate)  with probability 1 - rate, else 0          for every image by itself

    "Deep Networks with Stochastic Depth" (ECCV 2016). It is the identity until it is given `sample_keys`, one
    random key per image, `[b]`; with them the outcome does not depend on how a batch is split over devices:
    `model.set_attributes(sample_keys=keys, raise_if_not_found=False)`. `index` tells the branches of a network
    apart. Unlike dropout, it is not the business of `model.train()`: a teacher trains without.
    """

    def __init__(self, rate: float, index: int):
        self.rate, self.index = rate, index
        self.sample_keys: jax.Array | None = nnx.data(None)

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.sample_keys is None or self.rate == 0:
            return x
        draws = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, self.index)))(self.sample_keys)
        scale = jnp.where(draws < self.rate, 0.0, 1 / (1 - self.rate)).astype(x.dtype)
        return x * scale.reshape(-1, *[1] * (x.ndim - 1))


class Identity(nnx.Module):
    """Returns its input."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def residual(x: jax.Array, branch: jax.Array, scale: jax.Array | None = None) -> jax.Array:
    """`x + scale * branch`, `[..., c]`, one factor of `scale` per channel, `materialised`."""
    if scale is not None:
        branch = spread(scale.reshape(-1), branch.shape, branch.dtype) * branch
    return materialised(x + branch)


class MLP(nnx.Module):
    """`fc2(GELU(fc1(x)))`, `[..., c] -> [..., c]`."""

    def __init__(self, features: int, hidden: int, *, kernel_init: Initializer | None = None, rngs: nnx.Rngs):
        self.fc1 = Linear(features, hidden, kernel_init=kernel_init, rngs=rngs)
        self.fc2 = Linear(hidden, features, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(gelu(self.fc1(x)))


class Attention(nnx.Module):
    """Multi-head self-attention `softmax(q k^T / sqrt(d) + bias) v`, `[b, n, c] -> [b, n, c]`, d = c / heads.

    The bias, where there is one, is `[b or 1, heads, n, n]`.
    """

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        qkv_bias: bool = True,
        kernel_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        self.qkv = Linear(features, 3 * features, use_bias=qkv_bias, kernel_init=kernel_init, rngs=rngs)
        self.proj = Linear(features, features, kernel_init=kernel_init, rngs=rngs)
        self.heads = heads

    def __call__(self, x: jax.Array, bias: jax.Array | None = None) -> jax.Array:
        b, n, c = x.shape
        q, k, v = jnp.unstack(self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads), axis=2)
        return self.proj(attend(q, k, v, bias).reshape(b, n, c))
