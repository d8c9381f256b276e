"""BNNeck: a batch normalisation between a backbone and what compares its embeddings."""

import jax

from cion_jax.models.backbone import Backbone
from cion_jax.models.layers import BatchNorm


class BNNeck(Backbone):
    """A backbone whose embedding is batch-normalised, as supervised re-identification trains them.

    After a ReLU and pooling all embeddings point into one corner of space; the neck centers them, so that the
    cosine distance of different people is near 1. "Bag of Tricks and a Strong Baseline for Deep Person
    Re-identification" (CVPRW 2019); the attribute names are those of TransReID's checkpoints.
    """

    def __init__(self, base: Backbone):
        self.base = base
        self.bottleneck = BatchNorm(base.embed_dim)
        self.embed_dim, self.dtype = base.embed_dim, base.dtype

    def features(self, images: jax.Array) -> jax.Array:
        return self.base.features(images)

    def pool(self, features: jax.Array) -> jax.Array:
        return self.bottleneck(self.base.pool(features))
