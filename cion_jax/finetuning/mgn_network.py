"""The network of MGN: three branches that share a ResNet's first stages, pooled whole and in stripes."""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cion_jax.finetuning.gem import GeM
from cion_jax.finetuning.method import FineTunedNetwork
from cion_jax.models.backbone import Backbone
from cion_jax.models.definition_order import record_definition_order
from cion_jax.models.layers import BatchNorm, Conv, Identity, Linear, kaiming_normal_fan_out
from cion_jax.models.resnet import ResNet
from cion_jax.samples import IMAGENET_MEAN, IMAGENET_STD

Module = TypeVar("Module", bound=nnx.Module)

# branch -> its stripes, from top to bottom
BRANCHES = {"b1": (), "b2": ("b21", "b22"), "b3": ("b31", "b32", "b33")}
# heads, in the order of the test feature
HEADS = ("b1", "b2", "b3", "b21", "b22", "b31", "b32", "b33")
HEAD_DIM = 256


class Outputs(NamedTuple):
    """Embeddings `[b, 256]` and classifier weights `[256, identities]` of each of the `HEADS`, by name."""

    embeddings: dict[str, jax.Array]
    classifiers: dict[str, jax.Array]


class Head(nnx.Module):
    """GeM pooling, reduction to 256 channels and batch normalisation, `[b, h, w, c] -> [b, 256]`; and a classifier."""

    def __init__(self, features: int, identities: int, *, rngs: nnx.Rngs):
        self.pool_layer = GeM()
        reduction = Conv(features, HEAD_DIM, 1, use_bias=False, kernel_init=kaiming_normal_fan_out, rngs=rngs)
        self.bottleneck = nnx.Sequential(reduction, BatchNorm(HEAD_DIM))
        self.classifier = Linear(HEAD_DIM, identities, use_bias=False, rngs=rngs)

    def __call__(self, maps: jax.Array) -> jax.Array:
        return self.bottleneck(self.pool_layer(maps)[:, None, None])[:, 0, 0]


class MGNNetwork(FineTunedNetwork):
    """Multiple Granularity Network (Wang et al., ACM MM 2018) as FastReID builds it.

    The ResNet up to the first block of stage 3 is shared. Each branch is a copy of the blocks after it, followed by a
    batch normalisation; its map is pooled whole and, in two of them, in 2 or 3 stripes. All eight heads have their own
    weights. The test feature is the concatenation of their embeddings, `[b, 2048]`.

    Names and order of the attributes are those of FastReID's checkpoints, in which modules of the ResNet are numbered
    (see `cion_jax.conversion.finetuned_resnets`).
    """

    def __init__(self, resnet: Backbone, identities: int, *, rngs: nnx.Rngs):
        """
        Args:
            resnet: the backbone, which is copied.
            identities: outputs of the classifiers.
            rngs: source of the initial weights of the heads.

        Raises:
            ValueError: the backbone is no ResNet.
        """
        if not isinstance(resnet, ResNet):
            raise ValueError(f"MGN branches off a ResNet's third stage; {type(resnet).__name__} has none")
        shared = _copy(resnet)
        first, *rest = shared.layer3.layers
        # without a second block, as in small networks, there is only stage 4 to branch
        branch = nnx.Sequential(nnx.Sequential(*(rest or [Identity()])), shared.layer4)
        shared.layer3, shared.layer4 = nnx.Sequential(first), Identity()
        self.backbone = shared
        for name, stripes in BRANCHES.items():
            setattr(self, name, _copy(branch))
            for head in (name, *stripes):
                setattr(self, f"{head}_head", Head(resnet.embed_dim, identities, rngs=rngs))
        for name in BRANCHES:
            setattr(self, f"heads_extra_bn_{name}", BatchNorm(resnet.embed_dim))
        self.embed_dim, self.dtype = len(HEADS) * HEAD_DIM, resnet.dtype
        record_definition_order(self)

    def constants(self) -> dict[str, np.ndarray]:
        """FastReID's network normalises images itself, and keeps in its checkpoints by which mean and deviation."""
        values = {"pixel_mean": IMAGENET_MEAN, "pixel_std": IMAGENET_STD}
        scaled = {name: (255 * np.asarray(value, np.float64)).astype(np.float32) for name, value in values.items()}
        return {name: value.reshape(1, 3, 1, 1) for name, value in scaled.items()}

    def __call__(self, images: jax.Array) -> jax.Array:
        return jnp.concatenate(list(self._embeddings(images).values()), axis=1)

    def training_outputs(self, images: jax.Array) -> Outputs:
        classifiers = {name: getattr(self, f"{name}_head").classifier.kernel[...] for name in HEADS}
        return Outputs(self._embeddings(images), classifiers)

    def _embeddings(self, images: jax.Array) -> dict[str, jax.Array]:
        shared, embeddings = self.backbone.features(images.astype(self.dtype)), {}
        for name, stripes in BRANCHES.items():
            maps = getattr(self, f"heads_extra_bn_{name}")(getattr(self, name)(shared))
            parts = maps, *(striped(maps, len(stripes)) if stripes else ())
            for head, part in zip((name, *stripes), parts, strict=True):
                embeddings[head] = getattr(self, f"{head}_head")(part)
        return {name: embeddings[name] for name in HEADS}


def _copy(module: Module) -> Module:
    """A copy with arrays of its own, so that all of them can be donated."""
    structure, state = nnx.split(module)
    return nnx.merge(structure, jax.tree.map(jnp.copy, state))


def striped(maps: jax.Array, count: int) -> list[jax.Array]:
    """Cuts `[b, h, w, c]` into `count` stripes of ceil(h / count) rows, of which the last may have fewer.

    Raises:
        ValueError: the rows do not suffice.
    """
    height = -(-maps.shape[1] // count)
    if (count - 1) * height >= maps.shape[1]:
        raise ValueError(
            f"a map of {maps.shape[1]} rows can't be cut into {count} stripes of {height}; use taller images"
        )
    return [maps[:, start : start + height] for start in range(0, maps.shape[1], height)]
