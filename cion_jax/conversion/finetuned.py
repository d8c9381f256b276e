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
from cion_jax.conversion.files.pth_writer import write_pth
from cion_jax.conversion.files.reading import read_tensors
from cion_jax.conversion.files.safetensors_file import is_safetensors, write_safetensors
from cion_jax.conversion.finetuned_resnets import package_keys, released_keys
from cion_jax.conversion.keys import unwrapped, with_counters
from cion_jax.conversion.sections import known_sections, report_others
from cion_jax.conversion.state_dict import state_dict

# format -> keys that tell it from backbones and from other formats
MARKS = {
    "transreid": ("classifier.weight", "bottleneck.running_mean"),
    "fastreid": ("b1_head.pool_layer.p", "heads_extra_bn_b1.running_mean"),
    "cluster-contrast": ("feat_bn.weight", "feat_bn.running_mean"),
}
_PARALLEL = "module."  # what PyTorch's DistributedDataParallel puts in front of every key


def read_finetuned(path: str | os.PathLike, *, section: str | None = None) -> tuple[str, dict[str, np.ndarray]] | None:
    """The format and the state dict of a fine-tuned network's file, or None if the file is none.

    Keys are those of this package, which names the modules of a ResNet where some of the released code numbers them.

    Args:
        path: `.pth` or `.safetensors`.
        section: path of the section to take, where the file has several.

    Raises:
        ValueError: the file cannot be read.
    """
    name, taken, others = "", "", ()

    def select(content: Any) -> Mapping[str, Any]:
        nonlocal name, taken, others
        sections = {place: _recognised(tensors) for place, tensors in _sections(content).items()}
        networks = {place: found for place, found in sections.items() if found and section in (None, place)}
        if not networks:
            return {}
        taken, *others = networks
        name, tensors = networks[taken]
        return tensors

    arrays = read_tensors(path, select)
    if others:
        report_others(path, taken, others)
    return (name, package_keys(with_counters(arrays)[0])) if name else None


def _sections(content: Any) -> dict[str, Mapping]:
    """The content itself, with "" for its path, and its sections of tensors."""
    return {"": content} | dict(known_sections(content)) if isinstance(content, dict) else {}


def write_finetuned(network: nnx.Module, path: str | os.PathLike, *, about: Mapping[str, Any]) -> None:
    """Writes a network's state dict (`.pth` or `.safetensors`) and, beside it, its card, each atomically.

    Args:
        network: a fine-tuned network.
        path: the file to write; the name decides between `.pth` and `.safetensors`.
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
    plain = {unwrapped(str(key)): value for key, value in tensors.items()}
    for name, marks in MARKS.items():
        if all(mark in plain for mark in marks):
            return name, plain
    return None
