"""ConvNeXt: "A ConvNet for the 2020s" (CVPR 2022)."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.models.backbone import Backbone
from cion_jax.models.layers import Conv, LayerNorm, Linear, gelu, residual


@dataclasses.dataclass(frozen=True)
class Settings:
    """A ConvNeXt: blocks and channels of each stage, and where the layer scales start."""

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    layer_scale: float = 1e-6


MODELS = {
    # CVPR 2022, Section 3
    "convnext_tiny": Settings(depths=(3, 3, 9, 3), widths=(96, 192, 384, 768)),
    "convnext_small": Settings(depths=(3, 3, 27, 3), widths=(96, 192, 384, 768)),
    "convnext_base": Settings(depths=(3, 3, 27, 3), widths=(128, 256, 512, 1024)),
    # small one for tests
    "convnext_test": Settings(depths=(1, 1, 2, 1), widths=(8, 16, 16, 32)),
}


class Block(nnx.Module):
    """`x + gamma * pwconv2(GELU(pwconv1(norm(dwconv(x)))))`, `[b, h, w, c] -> [b, h, w, c]`."""

    def __init__(self, width: int, layer_scale: float, kernel_size: int = 7, *, rngs: nnx.Rngs):
        self.gamma = nnx.Param(jnp.full(width, layer_scale, jnp.float32))
        self.dwconv = Conv(width, width, kernel_size, padding=kernel_size // 2, groups=width, rngs=rngs)
        self.norm = LayerNorm(width)
        self.pwconv1 = Linear(width, 4 * width, rngs=rngs)
        self.pwconv2 = Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.pwconv2(gelu(self.pwconv1(self.norm(self.dwconv(x)))))
        return residual(x, y, self.gamma[...])


class ConvNeXt(Backbone):
    """ConvNeXt: four stages at strides 4, 8, 16 and 32; embeds as the normalised mean over positions."""

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32):
        widths = settings.widths
        self.downsample_layers = nnx.List(
            [nnx.Sequential(Conv(3, widths[0], 4, stride=4, rngs=rngs), LayerNorm(widths[0]))]
        )
        for before, width in itertools.pairwise(widths):
            self.downsample_layers.append(
                nnx.Sequential(LayerNorm(before), Conv(before, width, 2, stride=2, rngs=rngs))
            )
        self.stages = nnx.List([self._stage(settings, index, rngs) for index in range(len(widths))])
        self.norm = LayerNorm(widths[-1])
        self.embed_dim = widths[-1]
        self.dtype = dtype

    def _stage(self, settings: Settings, index: int, rngs: nnx.Rngs) -> nnx.Sequential:
        """The blocks of one stage, `[b, h, w, c] -> [b, h, w, c]`; families of the same frame have others."""
        width, depth = settings.widths[index], settings.depths[index]
        return nnx.Sequential(*[Block(width, settings.layer_scale, rngs=rngs) for _ in range(depth)])

    def features(self, images: jax.Array) -> jax.Array:
        """`[b, h, w, 3] -> [b, h / 32, w / 32, embed_dim]`.

        Raises:
            ValueError: images smaller than 32x32, of which no position is left.
        """
        if min(images.shape[1:3]) < 32:
            raise ValueError(f"images of {images.shape[1:3]} are too small for stride 32; enlarge them")
        x = images
        for downsample, stage in zip(self.downsample_layers, self.stages):
            x = stage(downsample(x))
        return x

    def pool(self, features: jax.Array) -> jax.Array:
        """Mean over positions, normalised."""
        return self.norm(jnp.mean(features, axis=(1, 2)))
