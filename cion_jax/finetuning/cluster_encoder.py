"""The network of Cluster-Contrast: a backbone and a batch normalisation, with features of unit length."""

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.finetuning.gem import GeM
from cion_jax.finetuning.method import FineTunedNetwork
from cion_jax.models.backbone import Backbone
from cion_jax.models.definition_order import record_definition_order
from cion_jax.models.layers import BatchNorm
from cion_jax.models.normalization import l2_normalize
from cion_jax.models.resnet import ResNet


class ClusterEncoder(FineTunedNetwork):
    """Backbone, pooling, batch normalisation and L2 normalisation, in training as at test time.

    A ResNet is pooled by GeM; other backbones pool as in pre-training (a ViT has its class token). Names and order of
    the attributes are those of the released checkpoints, in which modules of a ResNet are numbered
    (see `cion_jax.conversion.finetuned_resnets`).
    """

    def __init__(self, base: Backbone):
        self.base = base
        self.gap = nnx.data(GeM() if isinstance(base, ResNet) else None)
        self.feat_bn = BatchNorm(base.embed_dim)
        self.embed_dim = base.embed_dim
        record_definition_order(self)

    def __call__(self, images: jax.Array) -> jax.Array:
        features = self.base.features(images.astype(self.base.dtype))
        pooled = self.base.pool(features) if self.gap is None else self.gap(features)
        return l2_normalize(self.feat_bn(pooled.astype(jnp.promote_types(pooled.dtype, jnp.float32))))

    def training_outputs(self, images: jax.Array) -> jax.Array:
        """The unit embeddings `[b, embed_dim]`."""
        return self(images)
