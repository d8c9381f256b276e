"""The base class of all backbones."""

import jax
import jax.numpy as jnp
from flax import nnx


class Backbone(nnx.Module):
    """A network from images to embeddings.

    A family provides `features` and `pool`, sets `embed_dim` and `dtype` in its constructor, and takes
    `(settings, *, rngs, dtype)`. Attribute names are those of the PyTorch model, in its order of definition:
    that is all the conversion of weights needs.
    """

    embed_dim: int
    dtype: jnp.dtype

    def features(self, images: jax.Array) -> jax.Array:
        """Unpooled features of normalised images `[b, h, w, 3]`: `[b, h', w', c]`, or tokens `[b, n, c]`."""
        raise NotImplementedError

    def pool(self, features: jax.Array) -> jax.Array:
        """`features(...)` to embeddings `[b, embed_dim]`."""
        raise NotImplementedError

    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalised float images `[b, h, w, 3]` to embeddings `[b, embed_dim]` of the compute dtype."""
        if images.ndim != 4 or images.shape[-1] != 3 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"a backbone takes normalised float images [batch, height, width, 3]; got {images.dtype} "
                f"{tuple(images.shape)}: normalise, and move the channels last"
            )
        return self.pool(self.features(images.astype(self.dtype)))
