"""Parts shared by the vision transformers: block, convolutional stem, resizing of position embeddings."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from cion_jax.models.layers import MLP, BatchNorm, Conv, DropPath, LayerNorm, conv_before_norm, truncated_normal_02


class Block(nnx.Module):
    """Pre-norm block, `[..., width] -> [..., width]`, with stochastic depth on both branches (see `DropPath`):

        x <- x + drop(attn(norm1(x)))
        x <- x + drop(mlp(norm2(x)))

    `attn` is any module that keeps the shape. `index` counts the blocks of a network.
    """

    def __init__(
        self,
        width: int,
        attn: nnx.Module,
        mlp_ratio: int,
        *,
        epsilon: float,
        drop_rate: float = 0.0,
        index: int = 0,
        rngs: nnx.Rngs,
    ):
        self.norm1 = LayerNorm(width, epsilon=epsilon)
        self.attn = attn
        self.norm2 = LayerNorm(width, epsilon=epsilon)
        self.mlp = MLP(width, mlp_ratio * width, kernel_init=truncated_normal_02, rngs=rngs)
        self.attn_drop = DropPath(drop_rate, 2 * index)
        self.mlp_drop = DropPath(drop_rate, 2 * index + 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn_drop(self.attn(self.norm1(x)))
        return x + self.mlp_drop(self.mlp(self.norm2(x)))


class Stem(nnx.Module):
    """Three convolutions at stride 2, then patches: `[b, h, w, 3] -> [b, h / (2 patch), w / (2 patch), width]`.

    `norm` normalises after the first two convolutions, batch normalisation after the third.
    """

    def __init__(self, norm: Callable[[int], nnx.Module], stem_width: int, width: int, patch: int, *, rngs: nnx.Rngs):
        def conv(in_features: int, kernel_size: int, stride: int) -> Conv:
            return conv_before_norm(in_features, stem_width, kernel_size, stride, rngs=rngs)

        self.conv = nnx.Sequential(
            conv(3, 7, 2),
            norm(stem_width),
            nnx.relu,
            conv(stem_width, 3, 1),
            norm(stem_width),
            nnx.relu,
            conv(stem_width, 3, 1),
            BatchNorm(stem_width),
            nnx.relu,
        )
        self.proj = Conv(stem_width, width, patch, stride=patch, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.proj(self.conv(images))


def resize_positions(embedding: jax.Array, new_grid: tuple[int, int]) -> jax.Array:
    """Position embedding `[1, rows, columns, c]` for another grid of patches, `[1, *new_grid, c]`.

    Bicubic, rows and columns by themselves: P' = A P B^T with `cubic_resize_matrix`.
    """
    grid = embedding.shape[1:3]
    if new_grid == grid:
        return embedding
    rows, columns = (
        cubic_resize_matrix(size, new_size).astype(embedding.dtype) for size, new_size in zip(grid, new_grid)
    )
    return jnp.einsum("ir,jq,brqc->bijc", rows, columns, embedding, precision=lax.Precision.HIGHEST)


@functools.cache
def cubic_resize_matrix(size: int, new_size: int, excess: float = 0.1) -> np.ndarray:
    """Cubic interpolation of `size` samples at `new_size` places, as a matrix `[new_size, size]`.

    The released models call PyTorch's bicubic `interpolate` with the scale (new_size + `excess`) / size, and
    PyTorch maps output place i to (i + 1/2) / scale - 1/2 with that very scale, not with new_size / size.
    Kernel of Keys with a = -3/4, samples beyond the border repeat it, no antialiasing.
    """
    position = (np.arange(new_size) + 0.5) * size / (new_size + excess) - 0.5
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
