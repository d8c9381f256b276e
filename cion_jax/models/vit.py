"""Vision transformers with a convolutional stem.

"An Image is Worth 16x16 Words" (ICLR 2021) with the IBN convolution stem of "Self-Supervised Pre-Training for
Transformer-Based Person Re-Identification" (TransReID-SSL, arXiv 2111.12084) in place of the patch
projection.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.models.backbone import Backbone
from cion_jax.models.backend.broadcast import spread
from cion_jax.models.layers import IBN, Attention, LayerNorm, truncated_normal_02
from cion_jax.models.transformer import Block, Stem, resize_positions


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
_EPSILON = 1e-6


class ViT(Backbone):
    """Vision transformer; the embedding is the class token."""

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32):
        width = settings.width
        self.grid = (settings.image_size[0] // STRIDE, settings.image_size[1] // STRIDE)
        tokens = 1 + self.grid[0] * self.grid[1]
        self.cls_token = nnx.Param(truncated_normal_02(rngs.params(), (1, 1, width)))
        self.pos_embed = nnx.Param(truncated_normal_02(rngs.params(), (1, tokens, width)))
        self.patch_embed = Stem(IBN, settings.stem_width, width, STRIDE // 2, rngs=rngs)
        self.blocks = nnx.List([self._block(settings, rngs) for _ in range(settings.depth)])
        self.norm = LayerNorm(width, epsilon=_EPSILON)
        self.embed_dim = width
        self.dtype = dtype

    @staticmethod
    def _block(settings: Settings, rngs: nnx.Rngs) -> Block:
        attention = Attention(settings.width, settings.heads, kernel_init=truncated_normal_02, rngs=rngs)
        return Block(settings.width, attention, 4, epsilon=_EPSILON, rngs=rngs)

    def features(self, images: jax.Array) -> jax.Array:
        """`[b, h, w, 3] -> [b, 1 + (h / 16) (w / 16), width]`: the class token, then patches row by row.

        Raises:
            ValueError: images smaller than one patch.
        """
        if min(images.shape[1:3]) < STRIDE:
            raise ValueError(f"images of {images.shape[1:3]} hold no {STRIDE}x{STRIDE} patch; enlarge them")
        patches = self.patch_embed(images)
        b, rows, columns, c = patches.shape
        cls_token = spread(self.cls_token[...], (b, 1, c), patches.dtype)
        x = jnp.concatenate([cls_token, patches.reshape(b, rows * columns, c)], axis=1)
        positions = resize_position_embedding(self.pos_embed[...], self.grid, (rows, columns))
        x = x + spread(positions, x.shape, x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def pool(self, features: jax.Array) -> jax.Array:
        """The class token."""
        return features[:, 0]


def resize_position_embedding(embedding: jax.Array, grid: tuple[int, int], new_grid: tuple[int, int]) -> jax.Array:
    """Position embedding `[1, 1 + grid, c]` for another grid of patches, `[1, 1 + new_grid, c]`.

    Bicubic (`resize_positions`), the class token's kept. Fine-tuning code resizes checkpoints in the same way.
    """
    if new_grid == grid:
        return embedding
    c = embedding.shape[-1]
    patches = resize_positions(embedding[:, 1:].reshape(1, *grid, c), new_grid)
    return jnp.concatenate([embedding[:, :1], patches.reshape(1, -1, c)], axis=1)
