"""Networks from weight files: fine-tuned ones of any format, and the backbones that fine-tuning starts from."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from cion_jax.conversion import load_state_dict, load_with_provenance, read_weights
from cion_jax.conversion.candidates import misfit_hint
from cion_jax.conversion.card import training_of
from cion_jax.conversion.finetuned import read_finetuned
from cion_jax.conversion.imagenet import initialise
from cion_jax.distillation.run_weights import read_run
from cion_jax.finetuning.cluster_encoder import ClusterEncoder
from cion_jax.finetuning.method import Preprocessing
from cion_jax.finetuning.mgn_network import MGNNetwork
from cion_jax.finetuning.network import NeckClassifier
from cion_jax.finetuning.positions import create_resampled, fitted_positions
from cion_jax.models import create_model
from cion_jax.models.backbone import Backbone
from cion_jax.models.definition_order import record_definition_order
from cion_jax.models.vit import STRIDE, ViT
from cion_jax.runtime.files import sha256_of_file
from cion_jax.samples import IMAGENET_MEAN, IMAGENET_STD

Arrays = Mapping[str, np.ndarray]
_SIZE = (256, 128)
_HALF = (0.5, 0.5, 0.5)
_POSITIONS = "pos_embed"
PRETRAINED = Preprocessing(_SIZE, IMAGENET_MEAN, IMAGENET_STD)


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A network with its weights.

    Attributes:
        network: maps normalised images to embeddings.
        preprocessing: of its images.
        about: what identifies the weights: file name, SHA-256 and the part taken.
        card: the training fields of the card beside the file; empty without one.
    """

    network: nnx.Module
    preprocessing: Preprocessing
    about: dict[str, Any]
    card: dict[str, Any] = dataclasses.field(default_factory=dict)


def create_backbone(
    name: str,
    *,
    size: tuple[int, int] = _SIZE,
    resample_positions: bool = False,
    rngs: nnx.Rngs | None = None,
    dtype: Any = None,
) -> Backbone:
    """A newly initialised backbone for images of `size`; a ViT's position table is of that size.

    With `resample_positions` it is a `ResampledViT`.
    """
    rngs, dtype = rngs or nnx.Rngs(0), dtype or jnp.float32
    if resample_positions:
        return create_resampled(name, rngs=rngs, dtype=dtype, image_size=size)
    model = create_model(name, rngs=rngs, dtype=dtype)
    if isinstance(model, ViT) and model.grid != (size[0] // STRIDE, size[1] // STRIDE):
        model = create_model(name, rngs=rngs, dtype=dtype, image_size=size)
    return model


def start_backbone(backbone: Backbone, weights: str | os.PathLike) -> str:
    """Fills a backbone with pre-trained weights; returns the part of the source that was taken.

    Args:
        backbone: from `create_backbone`; a position table of another size is resized to its grid.
        weights: a ReIDZoo file, the `checkpoints` folder of a pre-training run, or the file of a fine-tuned network,
            of which the backbone is taken.

    Raises:
        ValueError: unreadable weights, or weights of another model.
    """
    if os.path.isdir(weights):
        run = read_run(weights)
        arrays, where = run.backbone, run.where
    elif (found := read_finetuned(weights)) is not None:
        name, tensors = found
        backbone_of = FORMATS[name].backbone
        if backbone_of is None:
            raise ValueError(f"{weights}: training can't start from the parts of a {name} network; give a backbone's")
        arrays, where = backbone_of(tensors), f"backbone of a {name} network"
    else:
        arrays, where = read_weights(weights)
    if isinstance(backbone, ViT) and _POSITIONS in arrays:
        arrays = {**arrays, _POSITIONS: fitted_positions(arrays[_POSITIONS], backbone.grid)}
    try:
        load_state_dict(backbone, arrays)
    except ValueError as error:
        raise ValueError(f"{weights} ({where}): {error}\n{misfit_hint(arrays)}") from None
    return where


def start_from(backbone: Backbone, weights: str | None, init: str | None) -> str:
    """Fills a backbone from `weights` (as `start_backbone`) or the ImageNet weights `init`; returns their source."""
    if weights:
        return f"{weights} ({start_backbone(backbone, weights)})"
    return f"{init}: {initialise(backbone, init)}" if init else "random weights"


def load_network(
    name: str, path: str | os.PathLike, *, section: str | None = None, resample_positions: bool | None = None
) -> Loaded:
    """The network in a weight file: a fine-tuned one of any format, or a backbone.

    Args:
        name: the backbone's model.
        path: `.pth` or `.safetensors`.
        section: the section of the file to take, where it has several.
        resample_positions: whether a ViT resamples its position table (`ResampledViT`); None: what the file's card
            says, else no.

    Raises:
        ValueError: unreadable weights, or weights of another model.
    """
    card = training_of(path)
    found = read_finetuned(path, section=section)
    if found is None:
        model = create_backbone(name, resample_positions=bool(resample_positions))
        about = load_with_provenance(model, path, section=section)
        return Loaded(model, _preprocessing(card, PRETRAINED), about, card)
    kind, arrays = found
    settings = _settings(card)
    if resample_positions is None:
        resample_positions = settings.get("resample_positions", False)
    network = FORMATS[kind].build(name, arrays, settings | {"resample_positions": resample_positions})
    record_definition_order(network)
    try:
        load_state_dict(network, arrays)
    except ValueError as error:
        raise ValueError(f"{path} (a {kind} network): {error}\n--model={name} may not be its backbone") from None
    about = {
        "weights": Path(path).name,
        "weights_sha256": sha256_of_file(path),
        "weights_taken": f"a fine-tuned network ({kind})",
        "resample_positions": resample_positions,
    }
    return Loaded(network, _preprocessing(card, FORMATS[kind].preprocessing), about, card)


def untrained(name: str) -> Loaded:
    """A newly initialised backbone."""
    return Loaded(create_model(name), PRETRAINED, {"weights": None})


def _settings(card: Mapping[str, Any]) -> dict[str, Any]:
    """The method's settings in a card; empty without a card."""
    config = card.get("config") or {}
    return dict(config.get(config.get("method", ""), {}))


def _preprocessing(card: Mapping[str, Any], released: Preprocessing) -> Preprocessing:
    """The card's preprocessing, or the released code's without a card."""
    return Preprocessing(*(tuple(card[name]) for name in ("input_size", "mean", "std"))) if card else released


def _base(name: str, arrays: Arrays, settings: Mapping[str, Any]) -> Backbone:
    """The backbone of arrays under `base.`; a ViT's position table tells the size of its images."""
    size = _SIZE
    if isinstance(table := arrays.get(f"base.{_POSITIONS}"), np.ndarray) and table.ndim == 3:
        height = int(np.sqrt(2 * (table.shape[1] - 1)))
        size = (height * STRIDE, height // 2 * STRIDE)
    return create_backbone(name, size=size, resample_positions=settings["resample_positions"])


def _build_transreid(name: str, arrays: Arrays, settings: Mapping[str, Any]) -> NeckClassifier:
    identities = len(arrays["classifier.weight"])
    test_feature = settings.get("test_feature", "before")
    return NeckClassifier(_base(name, arrays, settings), identities, test_feature=test_feature, rngs=nnx.Rngs(0))


def _build_mgn(name: str, arrays: Arrays, settings: Mapping[str, Any]) -> MGNNetwork:
    del settings
    return MGNNetwork(create_model(name), len(arrays["b1_head.classifier.weight"]), rngs=nnx.Rngs(0))


def _build_cluster_encoder(name: str, arrays: Arrays, settings: Mapping[str, Any]) -> ClusterEncoder:
    return ClusterEncoder(_base(name, arrays, settings))


def _backbone_of_base(arrays: Arrays) -> dict[str, np.ndarray]:
    return {key.removeprefix("base."): value for key, value in arrays.items() if key.startswith("base.")}


@dataclasses.dataclass(frozen=True)
class Format:
    """One of the formats of `cion_jax.conversion.finetuned`.

    Attributes:
        build: the network of the format's arrays, of a model's name and its method's settings.
        preprocessing: that of the released code, for files without a card.
        backbone: the backbone's arrays; None where the network has no whole backbone.
    """

    build: Callable[[str, Arrays, Mapping[str, Any]], nnx.Module]
    preprocessing: Preprocessing
    backbone: Callable[[Arrays], dict[str, np.ndarray]] | None


FORMATS = {
    "transreid": Format(_build_transreid, Preprocessing(_SIZE, _HALF, _HALF), _backbone_of_base),
    "fastreid": Format(_build_mgn, Preprocessing((384, 128), IMAGENET_MEAN, IMAGENET_STD), None),
    "cluster-contrast": Format(_build_cluster_encoder, Preprocessing(_SIZE, _HALF, _HALF), _backbone_of_base),
}
