"""Report section "Attention": attention of a vision transformer's class token over patches in the last block."""

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
_HEIGHT = 128  # of drawn maps, in pixels
_OPACITY = 0.55  # opacity of the attention map over the image


def attention_section(network: str, model: ViT, images: Images, paths: Sequence[str], size: Sequence[int]) -> Section:
    """Shows attention maps of a few images, resized to `size` (height, width) as in training."""
    shown = [image for path in paths if (image := _loaded(images, path, size)) is not None]
    if not shown:
        raise ValueError(f"none of {len(paths)} images can be read")
    scaled = (np.stack(shown) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    maps = np.asarray(class_attention(model, jnp.asarray(scaled, jnp.float32)))
    crops = []
    for number, (image, weights) in enumerate(zip(shown, maps), 1):
        peak = f"{weights.max() / weights.mean():.1f}"
        crops.append(Crop(jpeg(image), f"Image {number}", f"image {number}"))
        alt = f"Attention over image {number}, at most {peak} times the mean"
        crops.append(Crop(jpeg(_overlaid(image, weights)), alt, f"{peak} ×"))
    text = (
        f"Attention of the last block's class token over patches, averaged over heads; brighter is more. Network: "
        f"{network}. A good network attends to the body, clothes and bags, not to the background. The number below a "
        f"map is the ratio of the largest to the mean attention: 1 means uniform attention."
    )
    return Section("Attention", [Text(text), Strips("", [Strip("Images and their attention maps", crops)])])


def class_attention(model: ViT, images: jax.Array) -> jax.Array:
    """Attention of the last block's class token, averaged over heads: `[b, h, w, 3] -> [b, h / 16, w / 16]`.

    a_hp = softmax_p(q_h,class . k_hp / sqrt(d))   over all tokens p; the class token's own is dropped
    """
    truncated = cast(ViT, nnx.merge(*nnx.split(model)))
    truncated.eval()
    *others, last = cast(list[Block], list(truncated.blocks))
    attention = cast(Attention, last.attn)
    truncated.blocks, truncated.norm = nnx.List(others), last.norm1  # now its features are the last attention's input
    inputs = truncated.features(images)
    b, n, c = inputs.shape
    q, k, _ = jnp.unstack(attention.qkv(inputs).reshape(b, n, 3, attention.heads, c // attention.heads), axis=2)
    scores = jnp.einsum("bhd,bnhd->bhn", q[:, 0], k) / np.sqrt(c // attention.heads)
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).mean(axis=1)
    return weights[:, 1:].reshape(b, images.shape[1] // STRIDE, images.shape[2] // STRIDE)


def _loaded(images: Images, path: str, size: Sequence[int]) -> np.ndarray | None:
    try:
        return resize(images.load(path), size)
    except UndecodableImage:  # counted and named in the section on input data
        return None


def _overlaid(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Overlays the map on the image, from the smallest weight (dark) to the largest (bright)."""
    height, width = _HEIGHT, round(_HEIGHT * image.shape[1] / image.shape[0])
    scaled = (weights - weights.min()) / max(np.ptp(weights), 1e-12)
    smooth = Image.fromarray(scaled.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    colours = matplotlib.colormaps["inferno"](np.clip(np.asarray(smooth), 0, 1))[..., :3] * 255
    blended = _OPACITY * colours + (1 - _OPACITY) * resize(image, (height, width))
    return blended.astype(np.uint8)
