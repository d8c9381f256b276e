"""Swin transformers: "Hierarchical Vision Transformer using Shifted Windows" (ICCV 2021).

The released form is the one made for detection: maps of any size are padded with zeros to whole windows, the
padding takes part in attention, and every second block shifts, even where one window covers the map.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cion_jax.models.backbone import Backbone
from cion_jax.models.layers import Attention, Conv, LayerNorm, Linear, truncated_normal_02
from cion_jax.models.transformer import Block


@dataclasses.dataclass(frozen=True)
class Settings:
    """A Swin transformer.

    Attributes:
        width: channels of the first stage; they double from stage to stage.
        depths, heads: blocks and attention heads of each stage.
        window: side of an attention window, in positions.
        drop_rate: stochastic depth of the last block; it grows linearly from zero at the first.
    """

    width: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int = 8
    drop_rate: float = 0.1


MODELS = {
    # ICCV 2021, Section 3.3, with windows that suit 256x128
    "swin_tiny": Settings(width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24)),
    "swin_small": Settings(width=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24)),
    "swin_base": Settings(width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32)),
    # small one for tests
    "swin_test": Settings(width=8, depths=(2, 1, 1, 1), heads=(1, 2, 2, 4), window=4),
}

_PATCH = 4
_EPSILON = 1e-5
_MASKED = -100.0


class WindowAttention(Attention):
    """Attention within windows, with a learned bias per relative position, `[b, h, w, c] -> [b, h, w, c]`.

    The map is padded to whole windows and rolled up and left by `shift` positions, so that windows reach over
    those of the block before; positions that the roll made neighbours do not see each other.
    """

    def __init__(self, features: int, heads: int, window: int, shift: int, *, rngs: nnx.Rngs):
        super().__init__(features, heads, kernel_init=truncated_normal_02, rngs=rngs)
        positions = (2 * window - 1) ** 2
        self.relative_position_bias_table = nnx.Param(truncated_normal_02(rngs.params(), (positions, heads)))
        self.window, self.shift = window, shift

    def constants(self) -> dict[str, np.ndarray]:
        return {"relative_position_index": relative_position_index(self.window)}

    def __call__(self, x: jax.Array) -> jax.Array:
        h, w = x.shape[1:3]
        x = _pad_to_multiple(x, self.window)
        padded = x.shape
        if self.shift:
            x = jnp.roll(x, (-self.shift, -self.shift), (1, 2))
        windows = split_windows(x, self.window)
        windows = super().__call__(windows, self._bias(padded, windows.shape[0]))
        x = join_windows(windows, padded)
        if self.shift:
            x = jnp.roll(x, (self.shift, self.shift), (1, 2))
        return x[:, :h, :w]

    def _bias(self, padded: tuple[int, ...], windows: int) -> jax.Array:
        """The bias added to the logits, `[1 or windows, heads, n, n]`, for the n positions of a window."""
        bias = self.relative_position_bias_table[...][relative_position_index(self.window)]
        bias = bias.transpose(2, 0, 1)[None]
        if not self.shift:
            return bias
        mask = jnp.asarray(shift_mask(padded[1], padded[2], self.window, self.shift), bias.dtype)
        return jnp.tile(bias + mask[:, None], (windows // len(mask), 1, 1, 1))


class PatchEmbed(nnx.Module):
    """4x4 patches, normalised, `[b, h, w, 3] -> [b, h / 4, w / 4, width]`; zeros complete the last patches."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.proj = Conv(3, width, _PATCH, stride=_PATCH, rngs=rngs)
        self.norm = LayerNorm(width, epsilon=_EPSILON)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.norm(self.proj(_pad_to_multiple(images, _PATCH)))


class PatchMerging(nnx.Module):
    """Joins 2x2 positions into one of twice the channels, `[b, h, w, c] -> [b, h / 2, w / 2, 2 c]`."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.reduction = Linear(4 * width, 2 * width, use_bias=False, kernel_init=truncated_normal_02, rngs=rngs)
        self.norm = LayerNorm(4 * width, epsilon=_EPSILON)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = _pad_to_multiple(x, 2)
        b, h, w, c = x.shape
        # Channels are ordered by column, then row of the four.
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 4, 2, 5).reshape(b, h // 2, w // 2, 4 * c)
        return self.reduction(self.norm(x))


class Stage(nnx.Module):
    """Blocks on maps of one size, every second one shifted; `downsample` leads to the next stage."""

    def __init__(self, blocks: list[Block], downsample: PatchMerging | None):
        self.blocks = nnx.List(blocks)
        self.downsample = downsample

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class Swin(Backbone):
    """Swin transformer: four stages at strides 4, 8, 16 and 32; embeds as the mean over normalised positions."""

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32):
        self.patch_embed = PatchEmbed(settings.width, rngs=rngs)
        self.layers = nnx.List([self._stage(settings, index, rngs) for index in range(4)])
        self.embed_dim = 8 * settings.width
        self.norm3 = LayerNorm(self.embed_dim, epsilon=_EPSILON)
        self.dtype = dtype

    @staticmethod
    def _stage(settings: Settings, stage: int, rngs: nnx.Rngs) -> Stage:
        width, heads, window = settings.width * 2**stage, settings.heads[stage], settings.window
        drop_rates = np.linspace(0, settings.drop_rate, sum(settings.depths))
        first = sum(settings.depths[:stage])
        blocks = []
        for position in range(settings.depths[stage]):
            index = first + position
            attention = WindowAttention(width, heads, window, position % 2 * (window // 2), rngs=rngs)
            drop_rate = float(drop_rates[index])
            blocks.append(Block(width, attention, 4, epsilon=_EPSILON, drop_rate=drop_rate, index=index, rngs=rngs))
        return Stage(blocks, PatchMerging(width, rngs=rngs) if stage < 3 else None)

    def features(self, images: jax.Array) -> jax.Array:
        """`[b, h, w, 3] -> [b, h / 32, w / 32, embed_dim]`, rounded up, normalised."""
        x = self.patch_embed(images)
        for stage in self.layers:
            x = stage(x)
        return self.norm3(x)

    def pool(self, features: jax.Array) -> jax.Array:
        """Mean over positions."""
        return jnp.mean(features, axis=(1, 2))


def split_windows(x: jax.Array, window: int) -> jax.Array:
    """`[b, h, w, c]` to windows row by row, `[b * windows, window * window, c]`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // window, window, w // window, window, c).swapaxes(2, 3)
    return x.reshape(-1, window * window, c)


def join_windows(windows: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `split_windows`, to a map of `shape`."""
    b, h, w, c = shape
    window = int(np.sqrt(windows.shape[1]))
    x = windows.reshape(b, h // window, w // window, window, window, c).swapaxes(2, 3)
    return x.reshape(shape)


@functools.cache
def relative_position_index(window: int) -> np.ndarray:
    """Index into the bias table for each pair of a window's positions, `[window^2, window^2]`.

    (2 window - 1) (y - y' + window - 1) + (x - x' + window - 1) for the pair (y, x), (y', x').
    """
    y, x = np.divmod(np.arange(window * window), window)
    rows, columns = (np.subtract.outer(place, place) + window - 1 for place in (y, x))
    return rows * (2 * window - 1) + columns


@functools.cache
def shift_mask(h: int, w: int, window: int, shift: int) -> np.ndarray:
    """0 for pairs of positions that were together before the roll, -100 for others, `[windows, n, n]`."""
    # Along each axis: away from the border, before it in the last window, and what the roll brought there.
    rows, columns = (np.digitize(np.arange(size), [size - window, size - shift]) for size in (h, w))
    region = 3 * rows[:, None] + columns
    regions = region.reshape(h // window, window, w // window, window).swapaxes(1, 2).reshape(-1, window * window)
    return np.where(regions[:, :, None] == regions[:, None], 0.0, _MASKED)


def _pad_to_multiple(x: jax.Array, size: int) -> jax.Array:
    """Zeros below and to the right of `[b, h, w, c]`, up to multiples of `size`."""
    below, right = -x.shape[1] % size, -x.shape[2] % size
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0))) if below or right else x
