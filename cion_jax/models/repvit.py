"""RepViT: "RepViT: Revisiting Mobile CNN From ViT Perspective" (CVPR 2024), as it is trained."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.models.backbone import Backbone
from cion_jax.models.backend.compiler import materialised
from cion_jax.models.fuse import fold, identity, parallel
from cion_jax.models.layers import BatchNorm, Conv, Identity, conv_before_norm, gelu, residual
from cion_jax.models.squeeze_excite import SqueezeExcite


@dataclasses.dataclass(frozen=True)
class Settings:
    """A RepViT: channels of each stage, and its blocks without the one that halves the map before it."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]


MODELS = {
    # CVPR 2024, Section 3 and the released code
    "repvit_m0_9": Settings(widths=(48, 96, 192, 384), depths=(3, 3, 15, 2)),
    "repvit_m1_0": Settings(widths=(56, 112, 224, 448), depths=(3, 3, 15, 2)),
    "repvit_m1_5": Settings(widths=(64, 128, 256, 512), depths=(5, 5, 25, 4)),
    # small one for tests
    "repvit_test": Settings(widths=(8, 12, 16, 24), depths=(2, 1, 2, 1)),
}


class ConvNorm(nnx.Module):
    """A convolution that keeps the size up to its stride, then batch normalisation."""

    def __init__(
        self, in_features: int, out_features: int, size: int, *, stride: int = 1, groups: int = 1, rngs: nnx.Rngs
    ):
        self.c = conv_before_norm(in_features, out_features, size, stride, groups=groups, rngs=rngs)
        self.bn = BatchNorm(out_features)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.bn(self.c(x))

    def fused(self) -> Conv:
        return fold(self.c, self.bn)


class RepDepthwise(nnx.Module):
    """`bn(conv(x) + conv1(x) + x)`, depthwise 3x3 and 1x1: one 3x3 when fused. `[b, h, w, c] -> [b, h, w, c]`."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.conv = ConvNorm(width, width, 3, groups=width, rngs=rngs)
        self.conv1 = Conv(width, width, 1, groups=width, rngs=rngs)
        self.bn = BatchNorm(width)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.bn(self.conv(x) + self.conv1(x) + x)

    def fused(self) -> Conv:
        return fold(parallel(self.conv, self.conv1, identity(self.conv1)), self.bn)


class ChannelMixer(nnx.Module):
    """`x + ConvNorm(GELU(ConvNorm(x)))`, 1x1 with twice the channels inside; starts as the identity."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        last = ConvNorm(2 * width, width, 1, rngs=rngs)
        last.bn.scale.set_value(jnp.zeros(width))
        self.m = nnx.Sequential(ConvNorm(width, 2 * width, 1, rngs=rngs), gelu, last)

    def __call__(self, x: jax.Array) -> jax.Array:
        return residual(x, self.m(x))


class Block(nnx.Module):
    """Mixes positions, then channels: `[b, h, w, width] -> [b, h, w, width]`."""

    def __init__(self, width: int, squeeze: bool, *, rngs: nnx.Rngs):
        self.token_mixer = nnx.Sequential(
            RepDepthwise(width, rngs=rngs), SqueezeExcite(width, rngs=rngs) if squeeze else Identity()
        )
        self.channel_mixer = ChannelMixer(width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.channel_mixer(materialised(self.token_mixer(x)))


class Downsample(nnx.Module):
    """A block that halves the map: `[b, h, w, before] -> [b, h / 2, w / 2, width]`."""

    def __init__(self, before: int, width: int, *, rngs: nnx.Rngs):
        self.token_mixer = nnx.Sequential(
            ConvNorm(before, before, 3, stride=2, groups=before, rngs=rngs),
            Identity(),
            ConvNorm(before, width, 1, rngs=rngs),
        )
        self.channel_mixer = ChannelMixer(width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.channel_mixer(self.token_mixer(x))


class RepViT(Backbone):
    """RepViT: four stages at strides 4, 8, 16 and 32, squeeze-and-excite in every second block but the last."""

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32):
        before = settings.widths[0]
        stem = nnx.Sequential(
            ConvNorm(3, before // 2, 3, stride=2, rngs=rngs),
            gelu,
            ConvNorm(before // 2, before, 3, stride=2, rngs=rngs),
        )
        blocks: list[nnx.Module] = [stem]
        for stage, (width, depth) in enumerate(zip(settings.widths, settings.depths)):
            if stage:
                blocks.append(Downsample(before, width, rngs=rngs))
            for block in range(depth):
                blocks.append(Block(width, squeeze=block % 2 == 0 and block < depth - 1, rngs=rngs))
            before = width
        # the name in PyTorch, and the method that every backbone has: [b, h, w, 3] -> [b, h / 32, w / 32, embed_dim]
        self.features = nnx.Sequential(*blocks)  # pyright: ignore[reportAttributeAccessIssue]
        self.embed_dim = before
        self.dtype = dtype

    def pool(self, features: jax.Array) -> jax.Array:
        """Mean over positions."""
        return jnp.mean(features, axis=(1, 2))
