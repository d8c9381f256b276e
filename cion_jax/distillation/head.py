"""DINO's projection head: maps the backbone's embedding to a unit vector that is compared with prototypes."""

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.distillation.loss import Projection
from cion_jax.models.layers import BatchNorm, Linear, gelu, truncated_normal_02
from cion_jax.models.normalization import l2_normalize


class Prototypes(nnx.Module):
    """Unit vectors `[prototypes, dim]`; logits are cosine similarities to them.

    `weight_v` is `[prototypes, dim]` as in PyTorch's weight norm; the gain (`weight_g`) is fixed to one.
    """

    def __init__(self, dim: int, prototypes: int, *, rngs: nnx.Rngs):
        bound = dim**-0.5
        self.weight_v = nnx.Param(jax.random.uniform(rngs.params(), (prototypes, dim), jnp.float32, -bound, bound))

    def __call__(self) -> jax.Array:
        weight = self.weight_v[...]
        return weight / jnp.linalg.norm(weight, axis=-1, keepdims=True)


class Head(nnx.Module):
    """Three linear layers with GELU, L2 normalisation, and `Prototypes`: `[n, in_dim] -> Projection`.

    Attribute names are the released keys (`mlp.0`, `mlp.2`, `mlp.4`, `last_layer`). With `batch_norm` the two
    hidden layers are normalised over all views of the batch; small batches collapse without it.
    """

    def __init__(
        self,
        in_dim: int,
        prototypes: int,
        *,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        batch_norm: bool = False,
        rngs: nnx.Rngs,
    ):
        layers = []
        for size in (in_dim, hidden_dim):
            layers.append(Linear(size, hidden_dim, kernel_init=truncated_normal_02, rngs=rngs))
            layers += [BatchNorm(hidden_dim)] if batch_norm else []
            layers.append(gelu)
        layers.append(Linear(hidden_dim, bottleneck_dim, kernel_init=truncated_normal_02, rngs=rngs))
        self.mlp = nnx.Sequential(*layers)
        self.last_layer = Prototypes(bottleneck_dim, prototypes, rngs=rngs)

    def __call__(self, x: jax.Array) -> Projection:
        bottleneck = self.mlp(x).astype(jnp.float32)
        return Projection(l2_normalize(bottleneck).astype(x.dtype), self.last_layer())
