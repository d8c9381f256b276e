"""Vision transformers with a convolutional stem.

"An Image is Worth 16x16 Words" (ICLR 2021) with the IBN convolution stem of "Self-Supervised Pre-Training for
Transformer-Based Person Re-Identification" (TransReID-SSL, arXiv 2111.12084) in place of the patch
projection.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cion_jax.models.backbone import Backbone
from cion_jax.models.layers import IBN, MLP, Attention, BatchNorm, Conv, LayerNorm, truncated_normal_02


@dataclasses.dataclass(frozen=True)
class Settings:
    """A vision transformer.

    Attributes:
        width: channels of a token.
        heads: attention heads.
        depth: blocks.
        stem_width: channels of the three stem convolutions.
        image_size: height and width that the learned position embedding belongs to.
    """

    width: int
    heads: int
    depth: int = 12
    stem_width: int = 64
    image_size: tuple[int, int] = (256, 128)


MODELS = {
    # DeiT's sizes ("Training data-efficient image transformers", ICML 2021, Table 1)
    "vit_tiny": Settings(width=192, heads=3),
    "vit_small": Settings(width=384, heads=6),
    "vit_base": Settings(width=768, heads=12),
    # small one for tests
    "vit_test": Settings(width=32, heads=2, depth=2, stem_width=8, image_size=(64, 32)),
}

STRIDE = 16
_STEM_STRIDE = 2


class Stem(nnx.Module):
    """Three convolutions, then non-overlapping patches: `[b, h, w, 3] -> [b, h / 16, w / 16, width]`."""

    def __init__(self, stem_width: int, width: int, *, rngs: nnx.Rngs):
        def conv(in_features: int, kernel_size: int, stride: int) -> Conv:
            padding = kernel_size // 2
            return Conv(
                in_features,
                stem_width,
                kernel_size,
                stride=stride,
                padding=padding,
                use_bias=False,
                rngs=rngs,
            )

        self.conv = nnx.Sequential(
            conv(3, 7, _STEM_STRIDE),
            IBN(stem_width),
            nnx.relu,
            conv(stem_width, 3, 1),
            IBN(stem_width),
            nnx.relu,
            conv(stem_width, 3, 1),
            BatchNorm(stem_width),
            nnx.relu,
        )
        patch = STRIDE // _STEM_STRIDE
        self.proj = Conv(stem_width, width, patch, stride=patch, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.proj(self.conv(images))


class Block(nnx.Module):
    """Pre-norm transformer block, `[b, n, width] -> [b, n, width]`."""

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        width = settings.width
        self.norm1 = LayerNorm(width)
        self.attn = Attention(width, settings.heads, kernel_init=truncated_normal_02, rngs=rngs)
        self.norm2 = LayerNorm(width)
        self.mlp = MLP(width, 4 * width, kernel_init=truncated_normal_02, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(Backbone):
    """Vision transformer; the embedding is the class token."""

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32):
        width = settings.width
        self.grid = (settings.image_size[0] // STRIDE, settings.image_size[1] // STRIDE)
        tokens = 1 + self.grid[0] * self.grid[1]
        self.cls_token = nnx.Param(truncated_normal_02(rngs.params(), (1, 1, width)))
        self.pos_embed = nnx.Param(truncated_normal_02(rngs.params(), (1, tokens, width)))
        self.patch_embed = Stem(settings.stem_width, width, rngs=rngs)
        self.blocks = nnx.List([Block(settings, rngs=rngs) for _ in range(settings.depth)])
        self.norm = LayerNorm(width)
        self.embed_dim = width
        self.dtype = dtype

    def features(self, images: jax.Array) -> jax.Array:
        """`[b, h, w, 3] -> [b, 1 + (h / 16) (w / 16), width]`: the class token, then patches row by row.

        Raises:
            ValueError: images smaller than one patch.
        """
        if min(images.shape[1:3]) < STRIDE:
            raise ValueError(f"images of {images.shape[1:3]} hold no {STRIDE}x{STRIDE} patch; enlarge them")
        patches = self.patch_embed(images)
        b, rows, columns, c = patches.shape
        cls_token = jnp.broadcast_to(self.cls_token[...].astype(patches.dtype), (b, 1, c))
        x = jnp.concatenate([cls_token, patches.reshape(b, rows * columns, c)], axis=1)
        x = x + resize_position_embedding(self.pos_embed[...], self.grid, (rows, columns)).astype(x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def pool(self, features: jax.Array) -> jax.Array:
        """The class token."""
        return features[:, 0]


def resize_position_embedding(embedding: jax.Array, grid: tuple[int, int], new_grid: tuple[int, int]) -> jax.Array:
    """Position embedding `[1, 1 + grid, c]` for another grid of patches, `[1, 1 + new_grid, c]`.

    Bicubic, rows and columns by themselves, the class token's kept: P' = A P B^T with `cubic_resize_matrix`.
    Fine-tuning code resizes checkpoints in the same way.
    """
    if new_grid == grid:
        return embedding
    rows = cubic_resize_matrix(grid[0], new_grid[0]).astype(embedding.dtype)
    columns = cubic_resize_matrix(grid[1], new_grid[1]).astype(embedding.dtype)
    patches = embedding[:, 1:].reshape(1, *grid, -1)
    patches = jnp.einsum("ir,jq,brqc->bijc", rows, columns, patches)
    return jnp.concatenate([embedding[:, :1], patches.reshape(1, -1, embedding.shape[-1])], axis=1)


@functools.cache
def cubic_resize_matrix(size: int, new_size: int) -> np.ndarray:
    """Cubic interpolation of `size` samples at `new_size` places, as a matrix `[new_size, size]`.

    The released models call PyTorch's bicubic `interpolate` with the scale (new_size + 0.1) / size, and
    PyTorch maps output place i to (i + 1/2) / scale - 1/2 with that very scale, not with new_size / size.
    Kernel of Keys with a = -3/4, samples beyond the border repeat it, no antialiasing.
    """
    position = (np.arange(new_size) + 0.5) * size / (new_size + 0.1) - 0.5
    first = np.floor(position).astype(int)
    matrix = np.zeros((new_size, size))
    for offset in (-1, 0, 1, 2):
        sample = first + offset
        places = np.arange(new_size), np.clip(sample, 0, size - 1)
        matrix[places] += _cubic_kernel(np.abs(position - sample))
    return matrix


def _cubic_kernel(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
