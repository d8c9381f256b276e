"""The section on where a vision transformer looks: attention of the last block's class token over patches."""

from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from flax import nnx
from PIL import Image

from cion_jax.models.layers import Attention
from cion_jax.models.transformer import Block
from cion_jax.models.vit import STRIDE, ViT
from cion_jax.reporting.drawing import jpeg
from cion_jax.reporting.page import Crop, Section, Strip, Strips, Text
from cion_jax.samples import IMAGENET_MEAN, IMAGENET_STD, UndecodableImage, resize
from cion_jax.samples.stores.sources import Images

IMAGES = 6
_HEIGHT = 128  # pixels that maps are drawn with
_VEIL = 0.55  # opacity of the map over the image


def attention_section(network: str, model: ViT, images: Images, paths: Sequence[str], size: Sequence[int]) -> Section:
    """Maps of a few images, resized to `size` (height, width) as in training."""
    shown = [image for path in paths if (image := _loaded(images, path, size)) is not None]
    if not shown:
        raise ValueError(f"none of {len(paths)} images can be read")
    scaled = (np.stack(shown) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    maps = np.asarray(class_attention(model, jnp.asarray(scaled, jnp.float32)))
    crops = []
    for number, (image, weights) in enumerate(zip(shown, maps), 1):
        peak = f"{weights.max() / weights.mean():.1f}"
        crops.append(Crop(jpeg(image), f"Image {number}", f"image {number}"))
        seen = f"Attention over image {number}, at most {peak} times the mean"
        crops.append(Crop(jpeg(_overlaid(image, weights)), seen, f"{peak} ×"))
    text = (
        f"What the class token of the last block attends to, mean over heads; bright is much. Network: {network}. One "
        f"that knows people looks at body, clothes and bags and not at the background. Under a map is how many times "
        f"the mean its brightest patch has: at 1 it looks everywhere alike."
    )
    return Section("Attention", [Text(text), Strips("", [Strip("Images, each with its map", crops)])])


def class_attention(model: ViT, images: jax.Array) -> jax.Array:
    """Attention of the last block's class token, mean over heads: `[b, h, w, 3] -> [b, h / 16, w / 16]`.

    a_hp = softmax_p(q_h,class . k_hp / sqrt(d))   over all tokens p; that of the class token itself is left out
    """
    before = cast(ViT, nnx.merge(*nnx.split(model)))
    before.eval()
    *others, last = cast(list[Block], list(before.blocks))
    attention = cast(Attention, last.attn)
    before.blocks, before.norm = nnx.List(others), last.norm1  # its features are now what the last attention is given
    inputs = before.features(images)
    b, n, c = inputs.shape
    q, k, _ = jnp.unstack(attention.qkv(inputs).reshape(b, n, 3, attention.heads, c // attention.heads), axis=2)
    scores = jnp.einsum("bhd,bnhd->bhn", q[:, 0], k) / np.sqrt(c // attention.heads)
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).mean(axis=1)
    return weights[:, 1:].reshape(b, images.shape[1] // STRIDE, images.shape[2] // STRIDE)


def _loaded(images: Images, path: str, size: Sequence[int]) -> np.ndarray | None:
    try:
        return resize(images.load(path), size)
    except UndecodableImage:  # the section on what went in counts and names these
        return None


def _overlaid(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The image under its map, from the least weight (dark) to the largest (bright)."""
    height, width = _HEIGHT, round(_HEIGHT * image.shape[1] / image.shape[0])
    spread = (weights - weights.min()) / max(np.ptp(weights), 1e-12)
    smooth = Image.fromarray(spread.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    colours = matplotlib.colormaps["inferno"](np.clip(np.asarray(smooth), 0, 1))[..., :3] * 255
    blended = _VEIL * colours + (1 - _VEIL) * resize(image, (height, width))
    return blended.astype(np.uint8)
