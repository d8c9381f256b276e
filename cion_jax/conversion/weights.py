"""Reading and writing of weight files: ReIDZoo's, and those of other code.

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
from cion_jax.conversion.files.pth_writer import write_pth
from cion_jax.conversion.files.reading import read_tensors
from cion_jax.conversion.files.safetensors_file import is_safetensors, write_safetensors
from cion_jax.conversion.keys import head_prefix, join_network, split_network, under, with_counters
from cion_jax.conversion.loaders import PLAIN, WRAPPED
from cion_jax.conversion.sections import Section, report_others, select_section
from cion_jax.conversion.state_dict import load_state_dict, state_dict
from cion_jax.models.layers import BatchNorm
from cion_jax.runtime.files import sha256_of_file


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


def read_weights(
    path: str | os.PathLike, *, which: str = "teacher", section: str | None = None
) -> tuple[dict[str, np.ndarray], str]:
    """Reads a backbone's state dict from a `.pth` or `.safetensors`, executing none of its code.

    Takes ReIDZoo files, whole training checkpoints of the released code, bare state dicts, and those in sections with
    the names that training code gives them (`cion_jax.conversion.sections`). Prefixes are stripped
    (`cion_jax.conversion.keys`), the projection head is left out, counters of batches are completed.

    Args:
        path: the file; its format is recognised by its content.
        which: "teacher" or "student", where the file has networks of these names.
        section: path of the section to take, such as "state_dict_ema" or "model.state_dict".

    Returns:
        `({key: array}, where)`; `where` says which part of the file was taken, what was stripped and completed.

    Raises:
        ValueError: not such a file, truncated or corrupt, without that network, or a pickle that is refused.
    """
    weights = read_file(path, which=which, section=section)
    return weights.backbone, weights.where


def read_file(
    path: str | os.PathLike, *, which: str = "teacher", section: str | None = None, with_head: bool = False
) -> Weights:
    """As `read_weights`, with the projection head if it is asked for and there.

    Prints a note if the file has sections with other networks than the one taken.
    """
    taken, stripped = Section({}, ""), ""

    def select(content: Any) -> dict[str, Any]:
        nonlocal taken, stripped
        try:
            taken = select_section(content, which=which, section=section)
            network = split_network(taken.tensors)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        stripped = network.stripped
        return join_network(network.backbone, PLAIN, network.head if with_head else {})

    arrays = read_tensors(path, select)
    backbone, completed = with_counters(under(PLAIN, arrays))
    where = f"section {taken.path!r}" if taken.path else "a bare state dict"
    if taken.others:
        report_others(path, taken.path, taken.others)
    return Weights(backbone, head=under(head_prefix(PLAIN), arrays), where=where + stripped + completed)


def load_weights(
    model: nnx.Module, path: str | os.PathLike, *, which: str = "teacher", section: str | None = None
) -> str:
    """Fills `model` from a `.pth` or `.safetensors`, strictly; returns which part of the file was taken.

    Raises:
        ValueError: what `read_weights` and `load_state_dict` raise, naming the file and the models that it fits.
    """
    arrays, where = read_weights(path, which=which, section=section)
    try:
        load_state_dict(model, arrays)
    except ValueError as error:
        raise ValueError(f"{path} ({where}): {error}\n{misfit_hint(arrays)}") from None
    return where


def load_with_provenance(model: nnx.Module, path: str | os.PathLike, *, section: str | None = None) -> dict[str, str]:
    """Fills `model` as `load_weights` does and returns what identifies the weights.

    Returns:
        The file's name (`weights`), its SHA-256 (`weights_sha256`) and the section taken (`weights_taken`).
    """
    taken = load_weights(model, path, section=section)
    return {"weights": Path(path).name, "weights_sha256": sha256_of_file(path), "weights_taken": taken}


def write_weights(
    model: nnx.Module,
    path: str | os.PathLike,
    *,
    prefix: str | None = None,
    head: Mapping[str, np.ndarray] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes `model` and, beside it, its card (`<path>.json`), each atomically.

    A `.pth` is written as ReIDZoo's, `{"teacher": {prefix + key: tensor}}`; a `.safetensors` has bare keys, or
    with a head those of `backbone.` and `head.`.

    Args:
        model: the backbone.
        path: the file; it is written as safetensors if its name ends in `.safetensors`.
        prefix: what to put before the keys of a `.pth`; `reidzoo_prefix(model)` when left out.
        head: state dict of the projection head, to be written with the backbone.
        about: fields of the card, such as `model`, `config` and `data`.
    """
    arrays, head, about = state_dict(model), head or {}, about or {}
    card_path(path).unlink(missing_ok=True)  # a card of other weights must not outlive them
    if is_safetensors(path):
        named = join_network(arrays, PLAIN, head) if head else arrays
        write_safetensors(path, named, about.get("model", type(model).__name__))
    else:
        if prefix is None:
            wrapped = any("running_mean" in key for key in head)  # the released training wraps for it as well
            prefix = WRAPPED if wrapped else reidzoo_prefix(model)
        write_pth(path, {"teacher": join_network(arrays, prefix, head)})
    write_card(path, model, about)


def reidzoo_prefix(model: nnx.Module) -> str:
    """The key prefix of this model in ReIDZoo's files."""
    has_batch_norm = any(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(model))
    return WRAPPED if has_batch_norm else PLAIN
