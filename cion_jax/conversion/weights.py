"""Weight files as ReIDZoo has them, and as people have them.

ReIDZoo's files are `{"teacher": {prefix + key: tensor}}`. The prefix is `module.backbone.` for models with
batch normalisation, whose teacher the released training wraps for synchronised statistics, and `backbone.`
for others; fine-tuning code strips that many characters.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from cion_jax.conversion.pth import read_pth
from cion_jax.conversion.pth_writer import write_pth
from cion_jax.conversion.state_dict import load_state_dict, state_dict
from cion_jax.conversion.unpickler import Tensor
from cion_jax.models.layers import BatchNorm

# Where a checkpoint keeps a state dict, first found first taken: the released training saves student and
# teacher, and publishes the teacher.
_SECTIONS = ("teacher", "model", "state_dict")


def read_weights(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], str]:
    """Reads a backbone's state dict from a `.pth`, executing none of its code.

    Takes ReIDZoo files, whole training checkpoints of the released code (the teacher's backbone), bare state
    dicts, and those under `"model"` or `"state_dict"`; prefixes are stripped, the projection head is left
    out.

    Returns:
        `({key: array}, where)`, where `where` tells which part of the file was taken.

    Raises:
        ValueError: not such a file, truncated or corrupt, or holding objects other than tensors and settings.
    """
    section, prefix = "", ""

    def select(content: Any) -> dict[str, Tensor]:
        nonlocal section, prefix
        tensors, section = _section(content, path)
        tensors, prefix = _backbone(tensors)
        return tensors

    arrays = read_pth(path, select)
    where = f"section {section!r}" if section else "a bare state dict"
    return arrays, where + (f", keys under {prefix!r}" if prefix else "")


def load_weights(model: nnx.Module, path: str | os.PathLike) -> str:
    """Fills `model` from a `.pth`, strictly; returns which part of the file was taken.

    Raises:
        ValueError: what `read_weights` and `load_state_dict` raise, naming the file.
    """
    arrays, where = read_weights(path)
    try:
        load_state_dict(model, arrays)
    except ValueError as error:
        raise ValueError(f"{path} ({where}): {error}") from None
    return where


def write_weights(model: nnx.Module, path: str | os.PathLike) -> None:
    """Writes `model` as ReIDZoo does, `{"teacher": {prefix + key: tensor}}`, whole or not at all."""
    prefix = reidzoo_prefix(model)
    write_pth(path, {"teacher": {prefix + key: value for key, value in state_dict(model).items()}})


def reidzoo_prefix(model: nnx.Module) -> str:
    """What precedes the keys of this model in ReIDZoo's files."""
    has_batch_norm = any(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(model))
    return "module.backbone." if has_batch_norm else "backbone."


def _section(content: Any, path: str | os.PathLike) -> tuple[Mapping, str]:
    if isinstance(content, dict):
        for name in _SECTIONS:
            if isinstance(content.get(name), dict):
                return _tensors_only(content[name], path, name), name
        return _tensors_only(content, path, ""), ""
    raise ValueError(f"{path}: expected a state dict or a checkpoint, got {type(content).__name__}")


def _tensors_only(section: Mapping, path: str | os.PathLike, name: str) -> Mapping:
    others = [str(key) for key, value in section.items() if not isinstance(value, Tensor)]
    if others or not section:
        raise ValueError(
            f"{path}: {name or 'the file'} is not a state dict: "
            + (f"{', '.join(others[:5])} hold no tensor" if others else "it is empty")
            + f"; expected tensors at the top, or under one of {', '.join(_SECTIONS)}"
        )
    return section


def _backbone(tensors: Mapping) -> tuple[dict[str, Tensor], str]:
    """Strips `module.` and `backbone.`; of a backbone with head, the head is dropped."""
    for prefix, head in (("module.backbone.", "module.head."), ("backbone.", "head.")):
        if any(key.startswith(prefix) for key in tensors):
            kept = {key: value for key, value in tensors.items() if not key.startswith(head)}
            return {key.removeprefix(prefix): value for key, value in kept.items()}, prefix
    return {key.removeprefix("module."): value for key, value in tensors.items()}, ""
