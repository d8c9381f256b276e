"""Generalised-mean pooling, as MGN and Cluster-Contrast pool a ResNet's last map."""

import jax
import jax.numpy as jnp
from flax import nnx


class GeM(nnx.Module):
    """Generalised mean over positions with a trained exponent, `[b, h, w, c] -> [b, c]`.

        y = (mean_{h, w} max(x, epsilon)^p)^(1 / p)

    p = 1 is average pooling, p -> infinity maximum pooling. Computed in float32 at least. "Fine-tuning CNN Image
    Retrieval with No Human Annotation" (Radenovic et al., TPAMI 2019), Eq. 2.
    """

    def __init__(self, p: float = 3.0, *, epsilon: float = 1e-6):
        self.p = nnx.Param(jnp.full(1, p))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        p = self.p[...]
        x = jnp.maximum(x.astype(jnp.promote_types(x.dtype, jnp.float32)), self.epsilon)
        return jnp.mean(x**p, axis=(1, 2)) ** (1 / p)
