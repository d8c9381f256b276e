"""Weight files of fine-tuned networks, as the released fine-tuning code has them: the network's plain state dict.

A format is recognised by keys that only its networks have. ReIDZoo's files and other backbones are none of them.

| format | code | keys |
| --- | --- | --- |
| `transreid` | TransReID | `base.*`, `classifier.weight`, `bottleneck.*` |
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from cion_jax.conversion.card import card_path, write_card
from cion_jax.conversion.files.pth import read_pth
from cion_jax.conversion.files.pth_writer import write_pth
from cion_jax.conversion.files.safetensors_file import is_safetensors, read_safetensors, write_safetensors
from cion_jax.conversion.state_dict import state_dict

# format -> keys that tell it from backbones and from other formats
MARKS = {
    "transreid": ("classifier.weight", "bottleneck.running_mean"),
}
_SECTIONS = ("model", "state_dict")  # where others keep a state dict
_PARALLEL = "module."  # what PyTorch's DistributedDataParallel puts in front of every key


def read_finetuned(path: str | os.PathLike) -> tuple[str, dict[str, np.ndarray]] | None:
    """The format and the state dict of a fine-tuned network's file, or None if the file is none.

    Raises:
        ValueError: the file cannot be read.
    """
    if is_safetensors(path):
        found = _recognised(read_safetensors(path))
        return found and (found[0], {key: np.asarray(value) for key, value in found[1].items()})
    name = None

    def select(content: Any) -> Mapping[str, Any]:
        nonlocal name
        sections = [content, *(content.get(section) for section in _SECTIONS)] if isinstance(content, dict) else []
        for section in sections:
            if isinstance(section, dict) and (found := _recognised(section)):
                name, tensors = found
                return tensors
        return {}

    arrays = read_pth(path, select)
    return None if name is None else (name, arrays)


def write_finetuned(network: nnx.Module, path: str | os.PathLike, *, about: Mapping[str, Any]) -> None:
    """Writes a network's state dict (`.pth` or `.safetensors`) and, beside it, its card; each is whole or not there.

    Args:
        network: a fine-tuned network.
        path: what to write; `.safetensors` is told by its name.
        about: fields of the card, such as `model`, `mean` and `std`.
    """
    arrays = released_state_dict(network)
    card_path(path).unlink(missing_ok=True)  # a card of other weights must not outlive them
    if is_safetensors(path):
        write_safetensors(path, arrays, about.get("model", type(network).__name__))
    else:
        write_pth(path, arrays)
    write_card(path, network, about)


def released_state_dict(network: nnx.Module) -> dict[str, np.ndarray]:
    """The state dict of a fine-tuned network with the tensors that the released code has; its centers are apart."""
    return {key: value for key, value in state_dict(network).items() if key != "centers"}


def _recognised(tensors: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    plain = {str(key).removeprefix(_PARALLEL): value for key, value in tensors.items()}
    for name, marks in MARKS.items():
        if all(mark in plain for mark in marks):
            return name, plain
    return None
