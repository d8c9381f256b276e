"""VOLO: "Vision Outlooker for Visual Recognition" (TPAMI 2022, arXiv 2106.13112).

Outlook attention on patches of 8x8 pixels, then self-attention on patches of 16x16, then a class token that
alone attends to all patches, as in "Going deeper with Image Transformers" (ICCV 2021).
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.models.backbone import Backbone
from cion_jax.models.backend.broadcast import spread
from cion_jax.models.backend.compiler import not_fused
from cion_jax.models.backend.windows import taps
from cion_jax.models.layers import Attention, BatchNorm, Conv, LayerNorm, Linear, truncated_normal_02
from cion_jax.models.transformer import Block, Stem, resize_positions


@dataclasses.dataclass(frozen=True)
class Settings:
    """A VOLO.

    Attributes:
        depths: outlookers of the first stage, then transformer blocks of three stages of one width.
        width: channels of the outlookers; the transformer blocks have twice as many.
        heads: of outlook attention; the transformer blocks have twice as many.
        stem_width: channels of the three stem convolutions.
        image_size: height and width that the learned position embedding belongs to.
    """

    depths: tuple[int, int, int, int]
    width: int
    heads: int
    stem_width: int = 64
    image_size: tuple[int, int] = (256, 128)


MODELS = {
    # arXiv 2106.13112, Table 3
    "volo_d1": Settings(depths=(4, 4, 8, 2), width=192, heads=6),
    "volo_d2": Settings(depths=(6, 4, 10, 4), width=256, heads=8),
    "volo_d3": Settings(depths=(8, 8, 16, 4), width=256, heads=8),
    # small one for tests
    "volo_test": Settings(depths=(1, 1, 1, 1), width=16, heads=2, stem_width=8, image_size=(64, 32)),
}

STRIDE = 16
_MLP_RATIO = 3
_EPSILON = 1e-5


_WINDOW, _STEP = 3, 2  # of outlook attention


class OutlookAttention(nnx.Module):
    """Every position tells how the 3x3 values around it mix, `[b, h, w, c] -> [b, h, w, c]`.

    Over windows at step 2, for each head:

        A = softmax(attn(mean of the window's central 2x2 positions) / sqrt(d))      [9, 9], d = c / heads
        Y = A V                                              V: the window's values v(x), [9, d]

    and what overlapping windows say of one position is added up.
    """

    def __init__(self, features: int, heads: int, *, rngs: nnx.Rngs):
        def linear(out_features: int, use_bias: bool = True) -> Linear:
            return Linear(features, out_features, use_bias=use_bias, kernel_init=truncated_normal_02, rngs=rngs)

        self.v = linear(features, use_bias=False)
        self.attn = linear(_WINDOW**4 * heads)
        self.proj = linear(features)
        self.heads = heads

    def __call__(self, x: jax.Array) -> jax.Array:
        b, _, _, c = x.shape
        v = self.v(x)
        windows = unfold(v)
        rows, columns, positions = windows.shape[1:4]
        logits = self.attn(_pool(x)).reshape(b, rows, columns, self.heads, positions, positions)
        logits = logits.astype(jnp.promote_types(x.dtype, jnp.float32)) * (c // self.heads) ** -0.5
        windows = windows.reshape(b, rows, columns, positions, self.heads, c // self.heads)
        mixed = jnp.einsum("brsnpq,brsqnd->brspnd", jax.nn.softmax(logits).astype(x.dtype), windows)
        return self.proj(fold(mixed.reshape(b, rows, columns, positions, c), v.shape))


def unfold(x: jax.Array) -> jax.Array:
    """3x3 windows at step 2, bordered by zeros, `[b, h, w, c] -> [b, h / 2, w / 2, 9, c]`, rounded up."""
    return jnp.stack(taps(x, (_WINDOW, _WINDOW), _STEP, _WINDOW // 2), axis=3)


def fold(windows: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Adds up windows where they lie, to a map of `shape`: the transpose of `unfold`."""
    (x,) = jax.linear_transpose(unfold, jax.ShapeDtypeStruct(shape, windows.dtype))(windows)
    return x


def _pool(x: jax.Array) -> jax.Array:
    """Mean of 2x2 positions, of fewer at odd borders."""
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % _STEP), (0, x.shape[2] % _STEP), (0, 0)), mode="edge")
    b, h, w, c = x.shape
    return x.reshape(b, h // _STEP, _STEP, w // _STEP, _STEP, c).mean((2, 4))


class ClassAttention(nnx.Module):
    """Attention of the class token, the first, to all tokens, `[b, n, c] -> [b, 1, c]`."""

    def __init__(self, features: int, heads: int, *, rngs: nnx.Rngs):
        def linear(out_features: int, use_bias: bool = False) -> Linear:
            return Linear(features, out_features, use_bias=use_bias, kernel_init=truncated_normal_02, rngs=rngs)

        self.kv = linear(2 * features)
        self.q = linear(features)
        self.proj = linear(features, use_bias=True)
        self.heads = heads

    def __call__(self, x: jax.Array) -> jax.Array:
        b, n, c = x.shape
        k, v = jnp.unstack(self.kv(x).reshape(b, n, 2, self.heads, c // self.heads), axis=2)
        q = self.q(x[:, :1]).reshape(b, 1, self.heads, c // self.heads)
        return self.proj(jax.nn.dot_product_attention(q, k, v).reshape(b, 1, c))


class ClassBlock(Block):
    """A block that changes the class token only, `[b, n, c] -> [b, n, c]`."""

    def __call__(self, x: jax.Array) -> jax.Array:
        token = x[:, :1] + self.attn(self.norm1(x))
        token = token + self.mlp(self.norm2(token))
        return not_fused(jnp.concatenate([token, x[:, 1:]], axis=1))


class Downsample(nnx.Module):
    """2x2 positions into one of twice the channels, `[b, h, w, c] -> [b, h / 2, w / 2, 2 c]`."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.proj = Conv(width, 2 * width, 2, stride=2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.proj(x)


class VOLO(Backbone):
    """VOLO; the embedding is the class token."""

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32):
        width, heads = settings.width, settings.heads
        self.embed_dim = 2 * width
        grid = (settings.image_size[0] // STRIDE, settings.image_size[1] // STRIDE)
        self.pos_embed = nnx.Param(truncated_normal_02(rngs.params(), (1, *grid, self.embed_dim)))
        self.cls_token = nnx.Param(truncated_normal_02(rngs.params(), (1, 1, self.embed_dim)))
        self.patch_embed = Stem(BatchNorm, settings.stem_width, width, STRIDE // 4, rngs=rngs)

        def outlooker() -> Block:
            return _block(width, OutlookAttention(width, heads, rngs=rngs), rngs)

        def transformer() -> Block:
            attention = Attention(2 * width, 2 * heads, qkv_bias=False, kernel_init=truncated_normal_02, rngs=rngs)
            return _block(2 * width, attention, rngs)

        outlookers, *transformers = settings.depths
        first = nnx.Sequential(*[outlooker() for _ in range(outlookers)])
        self.network = nnx.List([first, Downsample(width, rngs=rngs)])
        for depth in transformers:
            self.network.append(nnx.Sequential(*[transformer() for _ in range(depth)]))
        self.post_network = nnx.List(
            [_block(2 * width, ClassAttention(2 * width, 2 * heads, rngs=rngs), rngs, ClassBlock) for _ in range(2)]
        )
        self.norm = LayerNorm(self.embed_dim, epsilon=_EPSILON)
        self.dtype = dtype

    def features(self, images: jax.Array) -> jax.Array:
        """`[b, h, w, 3] -> [b, 1 + (h / 16) (w / 16), embed_dim]`: the class token, then patches row by row.

        Raises:
            ValueError: images smaller than one patch.
        """
        if min(images.shape[1:3]) < STRIDE:
            raise ValueError(f"images of {images.shape[1:3]} hold no {STRIDE}x{STRIDE} patch; enlarge them")
        outlookers, downsample, *transformers = self.network
        x = downsample(outlookers(self.patch_embed(images)))
        b, rows, columns, c = x.shape
        x = x + spread(resize_positions(self.pos_embed[...], (rows, columns)), x.shape, x.dtype)
        x = x.reshape(b, rows * columns, c)
        for stage in transformers:
            x = stage(x)
        x = jnp.concatenate([spread(self.cls_token[...], (b, 1, c), x.dtype), x], axis=1)
        for block in self.post_network:
            x = block(x)
        return self.norm(x)

    def pool(self, features: jax.Array) -> jax.Array:
        """The class token."""
        return features[:, 0]


def _block(width: int, attention: nnx.Module, rngs: nnx.Rngs, kind: type[Block] = Block) -> Block:
    return kind(width, attention, _MLP_RATIO, epsilon=_EPSILON, rngs=rngs)
