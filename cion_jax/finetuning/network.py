"""The network of supervised fine-tuning: a backbone, a BNNeck and a classifier."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.finetuning.method import FineTunedNetwork
from cion_jax.models.backbone import Backbone
from cion_jax.models.layers import BatchNorm, Linear

FEATURES = ("before", "after")


class Outputs(NamedTuple):
    """Logits `[b, identities]`, features before the neck `[b, dim]`, and centers `[identities, dim]`, if any."""

    logits: jax.Array
    features: jax.Array
    centers: jax.Array | None


def normal_001(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Normal with standard deviation 0.001, for classifiers."""
    return 0.001 * jax.random.normal(key, shape)


class NeckClassifier(FineTunedNetwork):
    """Backbone, batch normalisation of its embedding (BNNeck), and a bias-free classifier behind it.

    "Bag of Tricks and a Strong Baseline for Deep Person Re-identification" (CVPRW 2019). Names and order of the
    attributes are those of TransReID's checkpoints. The classifier is used in training only.
    """

    def __init__(
        self,
        base: Backbone,
        identities: int,
        *,
        test_feature: str = "before",
        with_centers: bool = False,
        rngs: nnx.Rngs,
    ):
        """
        Args:
            base: the backbone.
            identities: outputs of the classifier.
            test_feature: "before" or "after" the neck, the embedding that is compared at test time.
            with_centers: learn one center per identity, for the center loss.
            rngs: source of the initial weights.
        """
        if test_feature not in FEATURES:
            raise ValueError(f"test_feature {test_feature!r} is unknown; choose from {', '.join(FEATURES)}")
        self.base = base
        self.classifier = Linear(base.embed_dim, identities, use_bias=False, kernel_init=normal_001, rngs=rngs)
        self.bottleneck = BatchNorm(base.embed_dim)
        self.embed_dim, self.test_feature = base.embed_dim, test_feature
        self.centers = nnx.data(_centers(identities, base.embed_dim, rngs) if with_centers else None)

    def __call__(self, images: jax.Array) -> jax.Array:
        features = self.base(images)
        return features if self.test_feature == "before" else self.bottleneck(_float(features))

    def training_outputs(self, images: jax.Array) -> Outputs:
        features = _float(self.base(images))
        centers = None if self.centers is None else self.centers[...]
        return Outputs(self.classifier(self.bottleneck(features)), features, centers)


def _centers(identities: int, dim: int, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(jax.random.normal(rngs.params(), (identities, dim)))


def _float(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
