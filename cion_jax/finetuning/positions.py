"""The position table of ViTs as the released fine-tuning treats it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cion_jax.models.definition_order import record_definition_order
from cion_jax.models.transformer import cubic_resize_matrix
from cion_jax.models.vit import MODELS, STRIDE, ViT


class ResampledViT(ViT):
    """A ViT whose position table is resampled in every forward pass, even if it has the size of the grid.

    With the table P [h, w, c], images of h x w patches get A P B^T, where A and B interpolate with the scales
    (h + 0.1) / h and (w + 0.1) / w (`cubic_resize_matrix`). The released fine-tuning compares a list with a tuple to
    find out if the sizes differ, so it always resamples (Vision_Transformer.py:251). Pre-training does not: networks
    that were fine-tuned so need it at test time, and no others.

    In the backward pass PyTorch's interpolation ignores the scale, so that the gradient of the table is that of its
    resampled values, as they are. This is kept.
    """

    def features(self, images: jax.Array) -> jax.Array:
        grid = (images.shape[1] // STRIDE, images.shape[2] // STRIDE)
        if grid != self.grid:  # a ViT resamples by itself
            return super().features(images)
        table = self.pos_embed.get_value()
        self.pos_embed.set_value(table + jax.lax.stop_gradient(resampled(table, grid) - table))
        try:
            return super().features(images)
        finally:
            self.pos_embed.set_value(table)


def resampled(table: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """A position table `[1, 1 + h w, c]`, resampled on its own grid; the class token's entry is kept."""
    rows, columns = (cubic_resize_matrix(size, size).astype(table.dtype) for size in grid)
    patches = table[:, 1:].reshape(1, *grid, table.shape[-1])
    patches = jnp.einsum("ir,jq,brqc->bijc", rows, columns, patches)
    return jnp.concatenate([table[:, :1], patches.reshape(1, -1, table.shape[-1])], axis=1)


def create_resampled(name: str, *, rngs: nnx.Rngs, dtype: jnp.dtype, **overrides: Any) -> ResampledViT:
    """As `cion_jax.models.create_model` for a ViT, as `ResampledViT`.

    Raises:
        ValueError: not a ViT.
    """
    if name not in MODELS:
        raise ValueError(f"{name} has no position table that the released fine-tuning resamples; only ViTs have")
    model = ResampledViT(dataclasses.replace(MODELS[name], **overrides), rngs=rngs, dtype=dtype)
    record_definition_order(model)
    return model


def fitted_positions(table: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The position table `[1, 1 + n, c]` of a checkpoint for another grid, as the released fine-tuning loads it.

    The table's own grid is taken to be twice as high as wide, h = floor(sqrt(2 n)), w = h // 2. Bilinear, without
    antialiasing; the class token's entry is kept.
    """
    count, c = table.shape[1] - 1, table.shape[2]
    height = int(np.sqrt(2 * count))
    own = (height, height // 2)
    if own == grid:
        return table
    patches = jnp.asarray(table[:, 1:].reshape(*own, c))
    patches = jax.image.resize(patches, (*grid, c), "linear", antialias=False)
    return np.concatenate([table[:, :1], np.asarray(patches).reshape(1, -1, c)], axis=1)
