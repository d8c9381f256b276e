"""Models by name.

A family is one module with a frozen dataclass `Settings`, a table `MODELS` of names and settings, and a class
`(settings, *, rngs, dtype)` derived from `Backbone`. Families are imported when a model is first asked for.
"""

import csv
import dataclasses
import difflib
import fnmatch
import functools
import importlib
from collections.abc import Callable
from importlib import resources
from typing import Any

import jax.numpy as jnp
from flax import nnx

from cion_jax.models.backbone import Backbone
from cion_jax.models.definition_order import record_definition_order

# family module -> its class
FAMILIES = {
    "convnext": "ConvNeXt",
    "edgenext": "EdgeNeXt",
    "fastvit": "FastViT",
    "ghostnet": "GhostNet",
    "repvit": "RepViT",
    "resnet": "ResNet",
    "swin": "Swin",
    "vit": "ViT",
    "volo": "VOLO",
}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Facts about a model from the paper and from ReIDZoo.

    Attributes:
        name: name in this registry.
        file: file stem in ReIDZoo.
        params_m: millions of parameters. The ViTs' counts include a classifier that the backbone has not.
        gflops: billions of multiply-adds for one 256x128 image, as the paper counts them.
        xla_gflops: the same as XLA counts them, see `cost.gflops`.
        market_map, market_rank1, msmt_map, msmt_rank1: percent, fine-tuned on Market-1501 and on MSMT17.
        prefix: what precedes a key of the backbone in ReIDZoo's files.
        parity: how far embeddings may be from the released model's, in standard deviations of its embeddings.
    """

    name: str
    file: str
    params_m: float
    gflops: float
    xla_gflops: float
    market_map: float
    market_rank1: float
    msmt_map: float
    msmt_rank1: float
    prefix: str
    parity: float


def create_model(
    name: str,
    *,
    rngs: nnx.Rngs | None = None,
    dtype: jnp.dtype | None = None,
    **overrides,
) -> Backbone:
    """A newly initialised backbone in training mode; `cion_jax.conversion.load_weights` fills it from a file.

    Args:
        name: one of `list_models()`.
        rngs: source of the initial weights; seed 0 when left out.
        dtype: compute dtype, float32 when left out. Parameters and statistics are float32 whatever it is.
        overrides: settings of the family to change, such as `last_stride=2` for a ResNet.

    Returns:
        `model` with `model.embed_dim`, `model(images)` and `model.features(images)`.

    Raises:
        ValueError: unknown model or setting (with the closest ones).
    """
    table = _table()
    if name not in table:
        raise ValueError(_unknown_model(name, list(table)))
    family, settings = table[name]
    fields = [field.name for field in dataclasses.fields(settings)]
    for override in overrides:
        if override not in fields:
            raise ValueError(
                f"{name} has no setting {override!r}{_closest(override, fields)}; it has {', '.join(fields)}"
            )
    settings = dataclasses.replace(settings, **overrides)
    model = family(settings, rngs=rngs or nnx.Rngs(0), dtype=dtype or jnp.float32)
    record_definition_order(model)
    return model


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that `create_model` takes and that match a shell pattern, such as `"*_ibn"`."""
    return [name for name in _table() if fnmatch.fnmatchcase(name, pattern)]


def model_info(name: str) -> ModelInfo:
    """The facts about one of ReIDZoo's 32 models.

    Raises:
        ValueError: not one of ReIDZoo's names (with the closest ones).
    """
    zoo = reidzoo()
    if name not in zoo:
        raise ValueError(f"{name!r} is not one of ReIDZoo's models{_closest(name, list(zoo))}")
    return zoo[name]


@functools.cache
def _table() -> dict[str, tuple[Callable[..., Backbone], Any]]:
    """name -> (family class, settings)"""
    table = {}
    for module_name, class_name in FAMILIES.items():
        module = importlib.import_module(f"cion_jax.models.{module_name}")
        for name, settings in module.MODELS.items():
            if name in table:
                raise ValueError(f"two families define {name!r}: {table[name][0].__name__} and {class_name}")
            table[name] = (getattr(module, class_name), settings)
    return table


@functools.cache
def reidzoo() -> dict[str, ModelInfo]:
    """The 32 models of ReIDZoo by name."""
    text = ("name", "file", "prefix")
    with resources.files("cion_jax.models").joinpath("zoo.csv").open(encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [
            {key: value if key in text else float(value) for key, value in row.items()} for row in csv.DictReader(file)
        ]
    return {row["name"]: ModelInfo(**row) for row in rows}


def _unknown_model(name: str, known: list[str]) -> str:
    return f"unknown model {name!r}{_closest(name, known)}; list_models() lists all"


def _closest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, dict.fromkeys(known), n=3, cutoff=0.5)
    return f", did you mean {' or '.join(close)}?" if close else ""
