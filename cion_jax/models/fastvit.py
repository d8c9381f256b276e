"""FastViT, as it is trained: parallel branches that `fuse` makes one convolution of.

"FastViT: A Fast Hybrid Vision Transformer using Structural Reparameterization" (ICCV 2023), its overparametrised
convolutions from "MobileOne: An Improved One Millisecond Mobile Backbone" (CVPR 2023).
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.models.backbone import Backbone
from cion_jax.models.fuse import fold, fold_behind, identity, parallel, scale
from cion_jax.models.layers import (
    Attention,
    BatchNorm,
    Conv,
    conv_before_norm,
    gelu,
    residual,
    truncated_normal_02,
)
from cion_jax.models.squeeze_excite import squeeze_excite


@dataclasses.dataclass(frozen=True)
class Settings:
    """A FastViT.

    Attributes:
        depths: blocks of each stage.
        widths: channels of each stage.
        attention: whether the last stage mixes positions by attention, with a position encoding before it.
        head_features: channels of an attention head.
        layer_scale: where the layer scales start.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    attention: bool = False
    head_features: int = 32
    layer_scale: float = 1e-5


MODELS = {
    # ICCV 2023, Table 1
    "fastvit_s12": Settings(depths=(2, 2, 6, 2)),
    "fastvit_sa12": Settings(depths=(2, 2, 6, 2), attention=True),
    "fastvit_sa24": Settings(depths=(4, 4, 12, 4), attention=True),
    # small one for tests
    "fastvit_test": Settings(depths=(1, 1, 1, 2), widths=(8, 8, 16, 32), attention=True, head_features=16),
}


class ConvNorm(nnx.Module):
    """A convolution that keeps the size up to its stride, then batch normalisation."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        kernel_init=None,
        rngs: nnx.Rngs,
    ):
        self.conv = conv_before_norm(
            in_features, out_features, size, stride, groups=groups, kernel_init=kernel_init, rngs=rngs
        )
        self.bn = BatchNorm(out_features)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.bn(self.conv(x))

    def fused(self) -> Conv:
        return fold(self.conv, self.bn)


class SqueezeExcite(nnx.Module):
    """Channel attention with a sixteenth of the channels inside and a sigmoid, `[b, h, w, c]`."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.reduce = Conv(features, features // 16, 1, rngs=rngs)
        self.expand = Conv(features // 16, features, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return squeeze_excite(x, self.reduce, self.expand, jax.nn.sigmoid)


class MobileOne(nnx.Module):
    """`GELU(se(sum of the branches))`: a convolution, where it is larger a 1x1 one beside it, and where the shape
    stays a shortcut, each batch-normalised. `[b, h, w, c] -> [b, h / stride, w / stride, out]`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        squeeze: bool = False,
        activate: bool = True,
        rngs: nnx.Rngs,
    ):
        def branch(size: int) -> ConvNorm:
            return ConvNorm(in_features, out_features, size, stride=stride, groups=groups, rngs=rngs)

        shortcut = stride == 1 and in_features == out_features
        self.se = nnx.data(SqueezeExcite(out_features, rngs=rngs) if squeeze else None)
        self.rbr_skip = nnx.data(BatchNorm(in_features) if shortcut else None)
        self.rbr_conv = nnx.List([branch(size)])
        self.rbr_scale = nnx.data(branch(1) if size > 1 else None)
        self.activate = activate

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.rbr_conv[0](x)
        for branch in (self.rbr_scale, self.rbr_skip):
            y = y if branch is None else y + branch(x)
        y = y if self.se is None else self.se(y)
        return gelu(y) if self.activate else y

    def fused(self) -> nnx.Module:
        conv = self.rbr_conv[0]
        if self.rbr_scale is not None:
            conv = parallel(conv, self.rbr_scale)
        if self.rbr_skip is not None:
            conv = parallel(conv, identity(conv, self.rbr_skip))
        if not self.activate:
            return conv
        return nnx.Sequential(conv, gelu) if self.se is None else nnx.Sequential(conv, self.se, gelu)


class Shortcut(nnx.Module):
    """The batch normalisation inside RepMixer, which the released model keeps as a MobileOne block without branches."""

    def __init__(self, width: int):
        self.rbr_skip = BatchNorm(width)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.rbr_skip(x)


class RepMixer(nnx.Module):
    """`x + layer_scale * (mixer(x) - norm(x))`, depthwise 3x3: one convolution when fused. `[b, h, w, c]`."""

    def __init__(self, width: int, layer_scale: float, *, rngs: nnx.Rngs):
        self.layer_scale = _layer_scale(width, layer_scale)
        self.norm = Shortcut(width)
        self.mixer = MobileOne(width, width, 3, groups=width, activate=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return residual(x, self.mixer(x) - self.norm(x), self.layer_scale[...])

    def fused(self) -> Conv:
        factor = self.layer_scale[...]
        shortcut = identity(self.mixer, self.norm.rbr_skip)
        return parallel(scale(self.mixer, factor), scale(shortcut, -factor), identity(self.mixer))


class ConvFFN(nnx.Module):
    """`fc2(GELU(fc1(conv(x))))`, depthwise 7x7, then four times the channels inside. `[b, h, w, c]`."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.conv = ConvNorm(width, width, 7, groups=width, kernel_init=truncated_normal_02, rngs=rngs)
        self.fc1 = Conv(width, 4 * width, 1, kernel_init=truncated_normal_02, rngs=rngs)
        self.fc2 = Conv(4 * width, width, 1, kernel_init=truncated_normal_02, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(gelu(self.fc1(self.conv(x))))


class MapAttention(Attention):
    """Attention between the positions of a map, `[b, h, w, c] -> [b, h, w, c]`."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x.reshape(x.shape[0], -1, x.shape[-1])).reshape(x.shape)


class Residual(nnx.Module):
    """`x + branch(x)`: what is left of a branch with a layer scale when that is folded."""

    def __init__(self, branch: nnx.Module):
        self.branch = branch

    def __call__(self, x: jax.Array) -> jax.Array:
        return residual(x, self.branch(x))


class RepMixerBlock(nnx.Module):
    """RepMixer, then `x + layer_scale * convffn(x)`, `[b, h, w, c] -> [b, h, w, c]`."""

    def __init__(self, width: int, settings: Settings, *, rngs: nnx.Rngs):
        self.layer_scale = _layer_scale(width, settings.layer_scale)
        self.token_mixer = RepMixer(width, settings.layer_scale, rngs=rngs)
        self.convffn = ConvFFN(width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.token_mixer(x)
        return residual(x, self.convffn(x), self.layer_scale[...])

    def fused(self) -> nnx.Sequential:
        self.convffn.fc2 = scale(self.convffn.fc2, self.layer_scale[...])
        return nnx.Sequential(self.token_mixer, Residual(self.convffn))


class AttentionBlock(nnx.Module):
    """`x + layer_scale_1 * token_mixer(norm(x))`, then `x + layer_scale_2 * convffn(x)`, `[b, h, w, c]`."""

    def __init__(self, width: int, settings: Settings, *, rngs: nnx.Rngs):
        self.layer_scale_1 = _layer_scale(width, settings.layer_scale)
        self.layer_scale_2 = _layer_scale(width, settings.layer_scale)
        self.norm = BatchNorm(width)
        self.token_mixer = MapAttention(
            width, width // settings.head_features, qkv_bias=False, kernel_init=truncated_normal_02, rngs=rngs
        )
        self.convffn = ConvFFN(width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = residual(x, self.token_mixer(self.norm(x)), self.layer_scale_1[...])
        return residual(x, self.convffn(x), self.layer_scale_2[...])

    def fused(self) -> nnx.Sequential:
        attention, convffn = self.token_mixer, self.convffn
        attention.qkv = fold_behind(self.norm, attention.qkv)
        attention.proj = scale(attention.proj, self.layer_scale_1[...])
        convffn.fc2 = scale(convffn.fc2, self.layer_scale_2[...])
        return nnx.Sequential(Residual(attention), Residual(convffn))


class PositionEncoding(nnx.Module):
    """`x + pe(x)`, depthwise 7x7, `[b, h, w, c]`: "Conditional Positional Encodings for Vision Transformers"
    (ICLR 2023)."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.pe = Conv(width, width, 7, padding=3, groups=width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.pe(x)

    def fused(self) -> Conv:
        return parallel(self.pe, identity(self.pe))


class LargeKernel(nnx.Module):
    """Depthwise 7x7 and 3x3 of stride 2, summed: `[b, h, w, c] -> [b, h / 2, w / 2, out]`. No activation follows:
    the released code computes one and drops it."""

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        self.lkb_origin = ConvNorm(in_features, out_features, 7, stride=2, groups=in_features, rngs=rngs)
        self.small_conv = ConvNorm(in_features, out_features, 3, stride=2, groups=in_features, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.lkb_origin(x) + self.small_conv(x)

    def fused(self) -> Conv:
        return parallel(self.lkb_origin, self.small_conv)


class PatchEmbed(nnx.Module):
    """Halves the map and changes its channels, between stages."""

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        self.proj = nnx.Sequential(
            LargeKernel(in_features, out_features, rngs=rngs), MobileOne(out_features, out_features, 1, rngs=rngs)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.proj(x)


class FastViT(Backbone):
    """FastViT: four stages at strides 4, 8, 16 and 32, a convolution to twice the channels, the mean over positions."""

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32):
        width = settings.widths[0]
        self.patch_embed = nnx.Sequential(
            MobileOne(3, width, 3, stride=2, rngs=rngs),
            MobileOne(width, width, 3, stride=2, groups=width, rngs=rngs),
            MobileOne(width, width, 1, rngs=rngs),
        )
        self.network = nnx.Sequential(*_stages(settings, rngs=rngs))
        last = settings.widths[-1]
        self.embed_dim = 2 * last
        self.conv_exp = MobileOne(last, self.embed_dim, 3, groups=last, squeeze=True, rngs=rngs)
        self.dtype = dtype

    def features(self, images: jax.Array) -> jax.Array:
        """`[b, h, w, 3] -> [b, h / 32, w / 32, embed_dim]`, sizes rounded up."""
        return self.conv_exp(self.network(self.patch_embed(images)))

    def pool(self, features: jax.Array) -> jax.Array:
        """Mean over positions."""
        return jnp.mean(features, axis=(1, 2))


def _stages(settings: Settings, *, rngs: nnx.Rngs) -> list[nnx.Module]:
    modules: list[nnx.Module] = []
    for stage, (width, depth) in enumerate(zip(settings.widths, settings.depths)):
        if stage:
            modules.append(PatchEmbed(settings.widths[stage - 1], width, rngs=rngs))
        attention = settings.attention and stage == len(settings.widths) - 1
        if attention:
            modules.append(PositionEncoding(width, rngs=rngs))
        block = AttentionBlock if attention else RepMixerBlock
        modules.append(nnx.Sequential(*[block(width, settings, rngs=rngs) for _ in range(depth)]))
    return modules


def _layer_scale(width: int, value: float) -> nnx.Param:
    """One factor per channel, in the shape that PyTorch's channels-first maps need."""
    return nnx.Param(jnp.full((width, 1, 1), value, jnp.float32))
