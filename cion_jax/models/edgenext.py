"""EdgeNeXt: "EdgeNeXt: Efficiently Amalgamated CNN-Transformer Architecture for Mobile Vision Applications".

ECCV 2022 Workshops. ConvNeXt's frame; the last block of stages 2-4 attends over channels.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from cion_jax.models import convnext
from cion_jax.models.layers import Conv, LayerNorm, Linear, gelu, residual


@dataclasses.dataclass(frozen=True)
class Settings(convnext.Settings):
    """An EdgeNeXt: a ConvNeXt's settings, and what each stage does differently.

    Attributes:
        heads: attention heads.
        kernel_sizes: of the depthwise convolutions, by stage.
        splits: channel groups of the attention block that ends a stage; None for a stage without one.
        position_stage: index of the stage whose attention block adds a position encoding.
    """

    heads: int = 8
    kernel_sizes: tuple[int, int, int, int] = (3, 5, 7, 9)
    splits: tuple[int | None, int | None, int | None, int | None] = (None, 2, 3, 4)
    position_stage: int = 1


MODELS = {
    # ECCVW 2022, Table 1 and the released code
    "edgenext_x_small": Settings(depths=(3, 3, 9, 3), widths=(32, 64, 100, 192), heads=4),
    "edgenext_small": Settings(depths=(3, 3, 9, 3), widths=(48, 96, 160, 304)),
    "edgenext_base": Settings(depths=(3, 3, 9, 3), widths=(80, 160, 288, 584)),
    # small one for tests; 20 channels in three groups are 7, 7 and 6
    "edgenext_test": Settings(depths=(1, 2, 2, 2), widths=(8, 16, 20, 32), heads=2),
}


@functools.cache
def fourier_positions(rows: int, columns: int, frequencies: int = 32) -> np.ndarray:
    """Sines and cosines of the positions of a grid, `[1, rows, columns, 2 frequencies]`.

    Row y = 1 ... rows is the angle a = 2 pi y / (rows + 1e-6); channels 2 k and 2 k + 1 are the sine and cosine of
    a / 10000^(2 k / frequencies). Columns likewise, after the rows.
    """

    def encode(size: int) -> np.ndarray:
        angles = 2 * np.pi * np.arange(1, size + 1) / (size + 1e-6)
        angles = angles[:, None] / 10000 ** (np.arange(0, frequencies, 2) / frequencies)
        return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(size, frequencies)

    grid = rows, columns, frequencies
    by_row, by_column = encode(rows)[:, None], encode(columns)[None]
    return np.concatenate([np.broadcast_to(by_row, grid), np.broadcast_to(by_column, grid)], axis=-1)[None]


class PositionEncoding(nnx.Module):
    """A learned projection of `fourier_positions`, `[1, h, w, c]` for a grid of any size."""

    frequencies = 32

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.token_projection = Conv(2 * self.frequencies, features, 1, rngs=rngs)

    def __call__(self, rows: int, columns: int, dtype: jnp.dtype) -> jax.Array:
        return self.token_projection(jnp.asarray(fourier_positions(rows, columns, self.frequencies), dtype))


class XCA(nnx.Module):
    """Cross-covariance attention, over channels, `[b, h, w, c] -> [b, h, w, c]`.

    With q, k, v `[c / heads, n]` over the n positions of an image, the rows of q and k of length one:

        softmax(temperature q k^T) v

    "XCiT: Cross-Covariance Image Transformers" (NeurIPS 2021).
    """

    def __init__(self, features: int, heads: int, *, rngs: nnx.Rngs):
        self.temperature = nnx.Param(jnp.ones((heads, 1, 1)))
        self.qkv = Linear(features, 3 * features, rngs=rngs)
        self.proj = Linear(features, features, rngs=rngs)
        self.heads = heads

    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        q, k, v = jnp.unstack(self.qkv(x).reshape(b, h * w, 3, self.heads, c // self.heads), axis=2)
        similarity = jnp.einsum("bnhq,bnhk->bhqk", _unit_channels(q), _unit_channels(k))
        similarity = similarity.astype(jnp.promote_types(x.dtype, jnp.float32)) * self.temperature[...]
        attention = nnx.softmax(similarity, axis=-1).astype(x.dtype)
        return self.proj(jnp.einsum("bhqk,bnhk->bnhq", attention, v).reshape(b, h, w, c))


def _unit_channels(x: jax.Array) -> jax.Array:
    """`[b, n, heads, c]` with every channel's n values divided by their length, or by 1e-12 if that is larger."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    squared_length = jnp.sum(jnp.square(wide), axis=1, keepdims=True)
    return (wide * lax.rsqrt(jnp.maximum(squared_length, 1e-24))).astype(x.dtype)


class SDTABlock(nnx.Module):
    """Split depth-wise transpose attention, `[b, h, w, c] -> [b, h, w, c]`.

    The channels fall into `splits` groups. Each but the last is added to the group before it as convolved, and
    convolved 3x3, depthwise. With y all groups side by side, and the position encoding where there is one:

        z = y + gamma_xca * xca(norm_xca(y))
        x + gamma * pwconv2(GELU(pwconv1(norm(z))))
    """

    def __init__(self, width: int, heads: int, splits: int, positions: bool, layer_scale: float, *, rngs: nnx.Rngs):
        self.group = math.ceil(width / splits)
        self.gamma_xca = nnx.Param(jnp.full(width, layer_scale, jnp.float32))
        self.gamma = nnx.Param(jnp.full(width, layer_scale, jnp.float32))
        group = self.group
        self.convs = nnx.List([Conv(group, group, 3, padding=1, groups=group, rngs=rngs) for _ in range(splits - 1)])
        self.pos_embd = nnx.data(PositionEncoding(width, rngs=rngs) if positions else None)
        self.norm_xca = LayerNorm(width)
        self.xca = XCA(width, heads, rngs=rngs)
        self.norm = LayerNorm(width)
        self.pwconv1 = Linear(width, 4 * width, rngs=rngs)
        self.pwconv2 = Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self._convolve_groups(x)
        if self.pos_embd is not None:
            y = y + self.pos_embd(*y.shape[1:3], y.dtype)
        z = residual(y, self.xca(self.norm_xca(y)), self.gamma_xca[...])
        y = self.pwconv2(gelu(self.pwconv1(self.norm(z))))
        return residual(x, y, self.gamma[...])

    def _convolve_groups(self, x: jax.Array) -> jax.Array:
        *groups, last = jnp.split(x, list(range(self.group, x.shape[-1], self.group)), axis=-1)
        convolved = []
        for group, conv in zip(groups, self.convs):
            convolved.append(conv(group + convolved[-1] if convolved else group))
        return jnp.concatenate([*convolved, last], axis=-1)


class EdgeNeXt(convnext.ConvNeXt):
    """EdgeNeXt: ConvNeXt's stem, downsampling and pooling around convolution and attention blocks."""

    def _stage(self, settings: Settings, index: int, rngs: nnx.Rngs) -> nnx.Sequential:
        width, splits, scale = settings.widths[index], settings.splits[index], settings.layer_scale
        convolutions = settings.depths[index] - (splits is not None)
        blocks: list[nnx.Module] = [
            convnext.Block(width, scale, settings.kernel_sizes[index], rngs=rngs) for _ in range(convolutions)
        ]
        if splits is not None:
            positions = index == settings.position_stage
            blocks.append(SDTABlock(width, settings.heads, splits, positions, scale, rngs=rngs))
        return nnx.Sequential(*blocks)
