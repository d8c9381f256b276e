"""GhostNet: "GhostNet: More Features from Cheap Operations" (CVPR 2020)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.models.backbone import Backbone
from cion_jax.models.layers import BatchNorm, Conv, conv_before_norm, residual
from cion_jax.models.squeeze_excite import SqueezeExcite, round_channels


class Block(NamedTuple):
    """A bottleneck at width 1: depthwise kernel, hidden and output channels, squeeze-and-excite, stride."""

    kernel_size: int
    hidden: int
    out: int
    squeeze: bool
    stride: int


# CVPR 2020, Table 1; the released code's stages
_STAGES = (
    (Block(3, 16, 16, False, 1),),
    (Block(3, 48, 24, False, 2),),
    (Block(3, 72, 24, False, 1),),
    (Block(5, 72, 40, True, 2),),
    (Block(5, 120, 40, True, 1),),
    (Block(3, 240, 80, False, 2),),
    (
        Block(3, 200, 80, False, 1),
        Block(3, 184, 80, False, 1),
        Block(3, 184, 80, False, 1),
        Block(3, 480, 112, True, 1),
        Block(3, 672, 112, True, 1),
    ),
    (Block(5, 672, 160, True, 2),),
    (
        Block(5, 960, 160, False, 1),
        Block(5, 960, 160, True, 1),
        Block(5, 960, 160, False, 1),
        Block(5, 960, 160, True, 1),
    ),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """A GhostNet: what the channels of `stages` are multiplied by, and the channels of the embedding."""

    width: float
    stages: tuple[tuple[Block, ...], ...] = _STAGES
    embed_dim: int = 1280

    def channels(self, features: float) -> int:
        """`features` at this width, a multiple of 4."""
        return round_channels(features * self.width)


MODELS = {
    # CVPR 2020, Section 4.3
    "ghostnet_0_5": Settings(width=0.5),
    "ghostnet_1_0": Settings(width=1.0),
    "ghostnet_1_3": Settings(width=1.3),
    # small one for tests: a block of every kind
    "ghostnet_test": Settings(
        width=1.0,
        stages=(
            (Block(3, 16, 8, False, 1),),
            (Block(3, 24, 12, False, 2),),
            (Block(5, 24, 12, True, 2), Block(5, 24, 12, True, 1)),
            (Block(3, 32, 16, False, 2), Block(3, 32, 16, False, 1)),
            (Block(5, 32, 24, True, 2),),
        ),
        embed_dim=32,
    ),
}


def _depthwise(features: int, kernel_size: int, stride: int = 1, *, rngs: nnx.Rngs) -> Conv:
    return conv_before_norm(features, features, kernel_size, stride, groups=features, rngs=rngs)


class GhostModule(nnx.Module):
    """`[y, g(y)]`: half of the channels from a 1x1 convolution, half from a depthwise 3x3 of those.

    `[b, h, w, c] -> [b, h, w, out]`, out even; with `relu`, after each of the two.
    """

    def __init__(self, in_features: int, out_features: int, relu: bool, *, rngs: nnx.Rngs):
        half = out_features // 2
        self.primary_conv = nnx.Sequential(conv_before_norm(in_features, half, 1, rngs=rngs), BatchNorm(half))
        self.cheap_operation = nnx.Sequential(_depthwise(half, 3, rngs=rngs), BatchNorm(half))
        self.relu = relu

    def __call__(self, x: jax.Array) -> jax.Array:
        intrinsic = self._activate(self.primary_conv(x))
        ghosts = self._activate(self.cheap_operation(intrinsic))
        return jnp.concatenate([intrinsic, ghosts], axis=-1)

    def _activate(self, x: jax.Array) -> jax.Array:
        return nnx.relu(x) if self.relu else x


class GhostBottleneck(nnx.Module):
    """Ghost module up, strided depthwise convolution, channel attention, ghost module down, and a shortcut.

    `[b, h, w, c] -> [b, h / stride, w / stride, out]`; at stride 1 there is no convolution between.
    """

    folds = (("conv_dw", "bn_dw"),)

    def __init__(self, in_features: int, block: Block, *, rngs: nnx.Rngs):
        hidden, out, stride = block.hidden, block.out, block.stride
        self.ghost1 = GhostModule(in_features, hidden, relu=True, rngs=rngs)
        strided = stride > 1
        self.conv_dw = nnx.data(_depthwise(hidden, block.kernel_size, stride, rngs=rngs) if strided else None)
        self.bn_dw = nnx.data(BatchNorm(hidden) if strided else None)
        self.se = nnx.data(SqueezeExcite(hidden, rngs=rngs) if block.squeeze else None)
        self.ghost2 = GhostModule(hidden, out, relu=False, rngs=rngs)
        self.shortcut = nnx.data(None)
        if strided or in_features != out:
            self.shortcut = nnx.Sequential(
                _depthwise(in_features, block.kernel_size, stride, rngs=rngs),
                BatchNorm(in_features),
                conv_before_norm(in_features, out, 1, rngs=rngs),
                BatchNorm(out),
            )

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.ghost1(x)
        if self.conv_dw is not None and self.bn_dw is not None:
            y = self.bn_dw(self.conv_dw(y))
        if self.se is not None:
            y = self.se(y)
        return residual(x if self.shortcut is None else self.shortcut(x), self.ghost2(y))


class ConvBnAct(nnx.Module):
    """`ReLU(bn1(conv(x)))` with a 1x1 convolution, `[b, h, w, c] -> [b, h, w, out]`."""

    folds = (("conv", "bn1"),)

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        self.conv = conv_before_norm(in_features, out_features, 1, rngs=rngs)
        self.bn1 = BatchNorm(out_features)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.bn1(self.conv(x)))


class GhostNet(Backbone):
    """GhostNet: strides 2 to 32; embeds as `ReLU(conv_head(mean over positions))`."""

    folds = (("conv_stem", "bn1"),)

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32):
        features = settings.channels(16)
        self.conv_stem = conv_before_norm(3, features, 3, 2, rngs=rngs)
        self.bn1 = BatchNorm(features)
        stages = []
        for stage in settings.stages:
            bottlenecks = []
            for block in stage:
                block = block._replace(hidden=settings.channels(block.hidden), out=settings.channels(block.out))
                bottlenecks.append(GhostBottleneck(features, block, rngs=rngs))
                features = block.out
            stages.append(nnx.Sequential(*bottlenecks))
        hidden = settings.channels(settings.stages[-1][-1].hidden)
        stages.append(nnx.Sequential(ConvBnAct(features, hidden, rngs=rngs)))
        self.blocks = nnx.Sequential(*stages)
        self.conv_head = Conv(hidden, settings.embed_dim, 1, rngs=rngs)
        self.embed_dim = settings.embed_dim
        self.dtype = dtype

    def features(self, images: jax.Array) -> jax.Array:
        """`[b, h, w, 3] -> [b, h / 32, w / 32, c]`, sizes rounded up, c = 960 at width 1."""
        return self.blocks(nnx.relu(self.bn1(self.conv_stem(images))))

    def pool(self, features: jax.Array) -> jax.Array:
        """Mean over positions, then a 1x1 convolution and ReLU."""
        mean = jnp.mean(features, axis=(1, 2), keepdims=True)
        return nnx.relu(self.conv_head(mean))[:, 0, 0]
