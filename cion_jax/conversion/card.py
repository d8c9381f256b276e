"""The card beside a weight file: what the weights are, how to feed them, and what they may be used for."""

import math
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from flax import nnx

import cion_jax
from cion_jax.runtime.files import read_json, sha256_of_file, write_json
from cion_jax.samples.images import IMAGENET_MEAN, IMAGENET_STD

# The terms of ReIDZoo and CION-AL, in short: appendix A.3 of the paper.
LICENCE = (
    "Research only. Weights of ReIDZoo, and weights trained on CION-AL, are under the terms of their authors' release "
    "(appendix A.3 of the paper); other weights are under the terms of the data they were trained on."
)
INTENDED_USE = {
    "purpose": "research on person re-identification",
    "privacy": "whoever uses the weights protects the privacy of the people in the data and answers for misuse",
    "redistribution": "not without the approval of the creators",
    "commercial_use": "not allowed",
    "modification": "not allowed for the released weights",
}


def card_path(path: str | os.PathLike) -> Path:
    """`weights.pth` has its card in `weights.pth.json`."""
    return Path(f"{os.fspath(path)}.json")


def write_card(path: str | os.PathLike, model: nnx.Module, about: Mapping[str, Any]) -> None:
    """Writes the card of the weights of `model` in the file at `path`.

    Args:
        path: the weights, already there: their SHA-256 goes into the card.
        model: says the number of parameters and the width of the embedding.
        about: what else is known, such as model, config and data; replaces the fields of these names.
    """
    card = {
        "model": type(model).__name__,
        "input_size": [256, 128],  # height and width that all of ReIDZoo is trained with
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "embed_dim": model.embed_dim,  # pyright: ignore[reportAttributeAccessIssue]
        "parameters": sum(math.prod(parameter.shape) for parameter in _parameters(model)),
        "weights": None,
        "data": None,
        "config": None,
        **about,
        "licence": LICENCE,
        "intended_use": INTENDED_USE,
        "versions": {"cion_jax": cion_jax.__version__} | {name: metadata.version(name) for name in ("jax", "flax")},
        "sha256": sha256_of_file(path),
    }
    write_json(card_path(path), card)


def training_of(path: str | os.PathLike) -> dict[str, Any]:
    """The fields of a weight file's card on its training; empty without a card, or if the card is another file's."""
    if not card_path(path).exists():
        return {}
    card = read_json(card_path(path))
    if card.get("sha256") != sha256_of_file(path):
        return {}
    return {name: card[name] for name in ("model", "weights", "input_size", "mean", "std", "data", "config")}


def _parameters(model: nnx.Module) -> list[nnx.Param]:
    return [value for _, value in nnx.iter_graph(model) if isinstance(value, nnx.Param)]
