"""ResNet and ResNet-IBN-a for person re-identification.

"Deep Residual Learning for Image Recognition" (CVPR 2016) with the stride in the 3x3 convolution, the last
stage kept at stride 1 as "Bag of Tricks and a Strong Baseline for Deep Person Re-identification" (CVPRW 2019)
does, and IBN-a ("Two at Once", ECCV 2018) in the first normalisation of every block of stages 1-3.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.models.backbone import Backbone
from cion_jax.models.backend.pooling import max_pool
from cion_jax.models.layers import IBN, BatchNorm, Conv, conv_before_norm, kaiming_normal_fan_out, residual


@dataclasses.dataclass(frozen=True)
class Settings:
    """A ResNet: blocks and base width of each of the four stages."""

    depths: tuple[int, int, int, int]
    bottleneck: bool = True
    ibn: bool = False
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    last_stride: int = 1


MODELS = {
    # CVPR 2016, Table 1
    "resnet18": Settings(depths=(2, 2, 2, 2), bottleneck=False),
    "resnet50": Settings(depths=(3, 4, 6, 3)),
    "resnet101": Settings(depths=(3, 4, 23, 3)),
    "resnet152": Settings(depths=(3, 8, 36, 3)),
    # ECCV 2018
    "resnet18_ibn": Settings(depths=(2, 2, 2, 2), bottleneck=False, ibn=True),
    "resnet50_ibn": Settings(depths=(3, 4, 6, 3), ibn=True),
    "resnet101_ibn": Settings(depths=(3, 4, 23, 3), ibn=True),
    "resnet152_ibn": Settings(depths=(3, 8, 36, 3), ibn=True),
    # small ones for tests and the demo
    "resnet_test": Settings(depths=(1, 1, 1, 1), bottleneck=False, widths=(24, 48, 96, 192)),
    "resnet_ibn_test": Settings(depths=(1, 1, 1, 1), ibn=True, widths=(8, 8, 16, 16)),
}


def _conv(in_features: int, out_features: int, kernel_size: int, stride: int = 1, *, rngs: nnx.Rngs) -> Conv:
    return conv_before_norm(
        in_features, out_features, kernel_size, stride, kernel_init=kaiming_normal_fan_out, rngs=rngs
    )


def _downsample(in_features: int, out_features: int, stride: int, *, rngs: nnx.Rngs) -> nnx.Sequential | None:
    """The shortcut's projection, where the block changes the shape."""
    if stride == 1 and in_features == out_features:
        return None
    return nnx.Sequential(_conv(in_features, out_features, 1, stride, rngs=rngs), BatchNorm(out_features))


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut, `[b, h, w, c] -> [b, h / stride, w / stride, width]`."""

    expansion = 1
    folds = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, in_features: int, width: int, stride: int, ibn: bool, *, rngs: nnx.Rngs):
        self.conv1 = _conv(in_features, width, 3, stride, rngs=rngs)
        self.bn1 = IBN(width) if ibn else BatchNorm(width)
        self.conv2 = _conv(width, width, 3, rngs=rngs)
        self.bn2 = BatchNorm(width)
        self.downsample = nnx.data(_downsample(in_features, width, stride, rngs=rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = nnx.relu(self.bn1(self.conv1(x)))
        return nnx.relu(residual(shortcut, self.bn2(self.conv2(x))))


class Bottleneck(nnx.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut, `[b, h, w, c] -> [b, h / stride, w / stride, 4 width]`."""

    expansion = 4
    folds = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, in_features: int, width: int, stride: int, ibn: bool, *, rngs: nnx.Rngs):
        out_features = self.expansion * width
        self.conv1 = _conv(in_features, width, 1, rngs=rngs)
        self.bn1 = IBN(width) if ibn else BatchNorm(width)
        self.conv2 = _conv(width, width, 3, stride, rngs=rngs)
        self.bn2 = BatchNorm(width)
        self.conv3 = _conv(width, out_features, 1, rngs=rngs)
        self.bn3 = BatchNorm(out_features)
        self.downsample = nnx.data(_downsample(in_features, out_features, stride, rngs=rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.relu(self.bn2(self.conv2(x)))
        return nnx.relu(residual(shortcut, self.bn3(self.conv3(x))))


class ResNet(Backbone):
    """ResNet: stride-4 stem, four stages at strides 1, 2, 2 and `last_stride`, global average pooling."""

    folds = (("conv1", "bn1"),)

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32):
        block = Bottleneck if settings.bottleneck else BasicBlock
        self.conv1 = _conv(3, settings.widths[0], 7, 2, rngs=rngs)
        self.bn1 = BatchNorm(settings.widths[0])
        features = settings.widths[0]
        stages = []
        for stage, stride in enumerate((1, 2, 2, settings.last_stride)):
            width, ibn = settings.widths[stage], settings.ibn and stage < 3
            blocks = [block(features, width, stride, ibn, rngs=rngs)]
            features = block.expansion * width
            for _ in range(1, settings.depths[stage]):
                blocks.append(block(features, width, 1, ibn, rngs=rngs))
            stages.append(nnx.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.embed_dim = features
        self.dtype = dtype

    def features(self, images: jax.Array) -> jax.Array:
        """`[b, h, w, 3] -> [b, h / 16, w / 16, embed_dim]` (last stride 1)."""
        x = nnx.relu(self.bn1(self.conv1(images)))
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # zeros don't win: nothing is below them after ReLU
        x = max_pool(x, size=3, stride=2)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def pool(self, features: jax.Array) -> jax.Array:
        """Mean over positions."""
        return jnp.mean(features, axis=(1, 2))
