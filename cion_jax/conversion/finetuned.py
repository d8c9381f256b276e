"""Weight files of fine-tuned networks, as the released fine-tuning code has them: the network's state dict.

A format is recognised by keys that only its networks have. ReIDZoo's files and other backbones are none of them.

| format | code | keys | section |
| --- | --- | --- | --- |
| `transreid` | TransReID | `base.*`, `classifier.weight`, `bottleneck.*` | none |
| `fastreid` | FastReID's MGN | `backbone.*`, `b1.*`, `b1_head.*`, ... | `model` |
| `cluster-contrast` | Cluster-Contrast | `module.` and `base.*`, `gap.p` (ResNets), `feat_bn.*` | `state_dict` |
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
from cion_jax.conversion.finetuned_resnets import package_keys, released_keys
from cion_jax.conversion.state_dict import state_dict

# format -> keys that tell it from backbones and from other formats
MARKS = {
    "transreid": ("classifier.weight", "bottleneck.running_mean"),
    "fastreid": ("b1_head.pool_layer.p", "heads_extra_bn_b1.running_mean"),
    "cluster-contrast": ("feat_bn.weight", "feat_bn.running_mean"),
}
_SECTIONS = ("model", "state_dict")  # where others keep a state dict
_PARALLEL = "module."  # what PyTorch's DistributedDataParallel puts in front of every key


def read_finetuned(path: str | os.PathLike) -> tuple[str, dict[str, np.ndarray]] | None:
    """The format and the state dict of a fine-tuned network's file, or None if the file is none.

    Keys are those of this package, which names the modules of a ResNet where some of the released code numbers them.

    Raises:
        ValueError: the file cannot be read.
    """
    if is_safetensors(path):
        found = _recognised(read_safetensors(path))
        return found and (found[0], package_keys({key: np.asarray(value) for key, value in found[1].items()}))
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
    return None if name is None else (name, package_keys(arrays))


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
        write_pth(path, _in_section(arrays))
    write_card(path, network, about)


def _in_section(arrays: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
    """The content of a `.pth` as the code that has such a network saves it."""
    found = _recognised(arrays)
    if found is not None and found[0] == "fastreid":
        return {"model": arrays}
    if found is not None and found[0] == "cluster-contrast":
        return {"state_dict": {_PARALLEL + key: value for key, value in arrays.items()}}
    return arrays


def released_state_dict(network: nnx.Module) -> dict[str, np.ndarray]:
    """The state dict of a fine-tuned network with the tensors that the released code has; its centers are apart."""
    return released_keys({key: value for key, value in state_dict(network).items() if key != "centers"})


def _recognised(tensors: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    plain = {str(key).removeprefix(_PARALLEL): value for key, value in tensors.items()}
    for name, marks in MARKS.items():
        if all(mark in plain for mark in marks):
            return name, plain
    return None
