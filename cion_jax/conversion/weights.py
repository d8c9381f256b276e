"""Weight files as ReIDZoo has them, and as people have them.

ReIDZoo's files are `{"teacher": {prefix + key: tensor}}`. The prefix is `module.backbone.` for models with
batch normalisation, whose teacher the released training wraps for synchronised statistics, and `backbone.`
for others; fine-tuning code strips that many characters. In a whole training checkpoint the projection head is
there too, as `module.head.` or `head.`, and a student beside the teacher.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from cion_jax.conversion.candidates import misfit_hint
from cion_jax.conversion.card import card_path, write_card
from cion_jax.conversion.files.pth import read_pth
from cion_jax.conversion.files.pth_writer import write_pth
from cion_jax.conversion.files.safetensors_file import is_safetensors, read_safetensors, write_safetensors
from cion_jax.conversion.files.unpickler import Tensor
from cion_jax.conversion.loaders import PLAIN, WRAPPED
from cion_jax.conversion.state_dict import load_state_dict, state_dict
from cion_jax.models.layers import BatchNorm
from cion_jax.runtime.files import sha256_of_file

NETWORKS = ("teacher", "student")
# Where others keep the state dict of their only network.
_SECTIONS = ("model", "state_dict")


@dataclasses.dataclass(frozen=True)
class Weights:
    """One network of a file or a run.

    Attributes:
        backbone: its state dict.
        head: state dict of its projection head, empty where there is none or none was asked for.
        where: which part of the source was taken, in words.
        about: what the source says of its training: model, config and data of a run.
    """

    backbone: dict[str, np.ndarray]
    head: dict[str, np.ndarray]
    where: str
    about: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_weights(path: str | os.PathLike, *, which: str = "teacher") -> tuple[dict[str, np.ndarray], str]:
    """Reads a backbone's state dict from a `.pth` or `.safetensors`, executing none of its code.

    Takes ReIDZoo files, whole training checkpoints of the released code, bare state dicts, and those under
    `"model"` or `"state_dict"`; prefixes are stripped, the projection head is left out.

    Args:
        path: the file; `.safetensors` is told by its name.
        which: "teacher" or "student", where the file has networks of these names.

    Returns:
        `({key: array}, where)`, where `where` tells which part of the file was taken.

    Raises:
        ValueError: not such a file, truncated or corrupt, without that network, or holding objects other than
            tensors and settings.
    """
    weights = read_file(path, which=which)
    return weights.backbone, weights.where


def read_file(path: str | os.PathLike, *, which: str = "teacher", with_head: bool = False) -> Weights:
    """As `read_weights`, with the projection head if it is asked for and there."""
    section, prefix = "", ""

    def select(content: Any) -> dict[str, Any]:
        nonlocal section, prefix
        tensors, section = _section(content, which, path)
        backbone, head, prefix = split_head(tensors)
        return _join(backbone, PLAIN, head if with_head else {})

    arrays = select(read_safetensors(path)) if is_safetensors(path) else read_pth(path, select)
    where = f"section {section!r}" if section else "a bare state dict"
    return Weights(
        backbone=_under(PLAIN, arrays),
        head=_under(_head_prefix(PLAIN), arrays),
        where=where + (f", keys under {prefix!r}" if prefix else ""),
    )


def load_weights(model: nnx.Module, path: str | os.PathLike, *, which: str = "teacher") -> str:
    """Fills `model` from a `.pth` or `.safetensors`, strictly; returns which part of the file was taken.

    Raises:
        ValueError: what `read_weights` and `load_state_dict` raise, naming the file and the models that it fits.
    """
    arrays, where = read_weights(path, which=which)
    try:
        load_state_dict(model, arrays)
    except ValueError as error:
        raise ValueError(f"{path} ({where}): {error}\n{misfit_hint(arrays)}") from None
    return where


def load_with_provenance(model: nnx.Module, path: str | os.PathLike) -> dict[str, str]:
    """Fills `model` as `load_weights` does and returns what identifies the weights.

    Returns:
        The file's name (`weights`), its SHA-256 (`weights_sha256`) and the section taken (`weights_taken`).
    """
    taken = load_weights(model, path)
    return {"weights": Path(path).name, "weights_sha256": sha256_of_file(path), "weights_taken": taken}


def write_weights(
    model: nnx.Module,
    path: str | os.PathLike,
    *,
    prefix: str | None = None,
    head: Mapping[str, np.ndarray] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes `model` and, beside it, its card (`<path>.json`); each is whole or not there.

    A `.pth` is written as ReIDZoo's, `{"teacher": {prefix + key: tensor}}`; a `.safetensors` has bare keys, or
    with a head those of `backbone.` and `head.`.

    Args:
        model: the backbone.
        path: what to write; `.safetensors` is told by its name.
        prefix: what to put before the keys of a `.pth`; `reidzoo_prefix(model)` when left out.
        head: state dict of the projection head, to be written with the backbone.
        about: fields of the card, such as `model`, `config` and `data`.
    """
    arrays, head, about = state_dict(model), head or {}, about or {}
    card_path(path).unlink(missing_ok=True)  # a card of other weights must not outlive them
    if is_safetensors(path):
        named = _join(arrays, PLAIN, head) if head else arrays
        write_safetensors(path, named, about.get("model", type(model).__name__))
    else:
        if prefix is None:
            wrapped = any("running_mean" in key for key in head)  # the released training wraps for it as well
            prefix = WRAPPED if wrapped else reidzoo_prefix(model)
        write_pth(path, {"teacher": _join(arrays, prefix, head)})
    write_card(path, model, about)


def reidzoo_prefix(model: nnx.Module) -> str:
    """The key prefix of this model in ReIDZoo's files."""
    has_batch_norm = any(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(model))
    return WRAPPED if has_batch_norm else PLAIN


def split_head(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Backbone and head of a network's tensors, without their prefixes, and the backbone's prefix."""
    for prefix in (WRAPPED, PLAIN):
        if any(key.startswith(prefix) for key in tensors):
            head_prefix = _head_prefix(prefix)
            head = {key: value for key, value in tensors.items() if key.startswith(head_prefix)}
            backbone = {key.removeprefix(prefix): value for key, value in tensors.items() if key not in head}
            return backbone, {key.removeprefix(head_prefix): value for key, value in head.items()}, prefix
    return {key.removeprefix("module."): value for key, value in tensors.items()}, {}, ""


def _head_prefix(prefix: str) -> str:
    return prefix.removesuffix(PLAIN) + "head."


def _join(backbone: Mapping, prefix: str, head: Mapping) -> dict[str, Any]:
    named = {prefix + key: value for key, value in backbone.items()}
    return named | {_head_prefix(prefix) + key: value for key, value in head.items()}


def _under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def _section(content: Any, which: str, path: str | os.PathLike) -> tuple[Mapping, str]:
    if which not in NETWORKS:
        raise ValueError(f"--which={which} is unknown; choose teacher or student")
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a state dict or a checkpoint, got {type(content).__name__}")
    networks = [name for name in NETWORKS if isinstance(content.get(name), dict)]
    if which in networks:
        return _tensors_only(content[which], path, which), which
    if networks or which == "student":
        raise ValueError(f"{path}: it has no {which}; " + (f"give --which={networks[0]}" if networks else _UNNAMED))
    for name in _SECTIONS:
        if isinstance(content.get(name), dict):
            return _tensors_only(content[name], path, name), name
    return _tensors_only(content, path, ""), ""


_UNNAMED = "the networks in it are not named, leave --which out"


def _tensors_only(section: Mapping, path: str | os.PathLike, name: str) -> Mapping:
    others = [str(key) for key, value in section.items() if not isinstance(value, Tensor | np.ndarray)]
    if others or not section:
        raise ValueError(
            f"{path}: {name or 'the file'} is not a state dict: "
            + (f"{', '.join(others[:5])} hold no tensor" if others else "it is empty")
            + f"; expected tensors at the top, or under one of {', '.join(NETWORKS + _SECTIONS)}"
        )
    return section
