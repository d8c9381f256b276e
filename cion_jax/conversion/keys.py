"""Keys of a network's state dict without what wrappers and training code put around its own names."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from cion_jax.conversion.loaders import PLAIN

# Modules around a module: torch.compile, (distributed) data parallel, FSDP, activation checkpointing. They may be
# around any part of a network.
_WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_HEAD = "head."
_COUNTED = "n_averaged"  # of torch.optim.swa_utils.AveragedModel: how many states the average is of
_COUNTER, _VARIANCE = ".num_batches_tracked", ".running_var"


class Network(NamedTuple):
    """Backbone and projection head by their own keys, and a description of what was stripped."""

    backbone: dict[str, Any]
    head: dict[str, Any]
    stripped: str


def split_network(tensors: Mapping[str, Any]) -> Network:
    """Separates the backbone from the head, and both from their prefixes.

    Removed are the names of wrappers in any position; then prefixes that all keys share, such as `model.` (Lightning),
    `base.` (TransReID) or `encoder.`; then `backbone.`, beside which `head.` is the projection head. Whether the keys
    that remain are a model's is checked later, strictly.

    Raises:
        ValueError: two keys that become the same.
    """
    names = {key: unwrapped(key) for key in tensors if key != _COUNTED}
    names, head = _without_shared_prefix(names, but=PLAIN), {}
    if any(name.startswith(PLAIN) for name in names.values()):
        head = {key: name.removeprefix(_HEAD) for key, name in names.items() if name.startswith(_HEAD)}
        names = {key: name.removeprefix(PLAIN) for key, name in names.items() if key not in head}
        names = _without_shared_prefix(names)
    for part in (names, head):
        if twice := [name for name, count in Counter(part.values()).items() if count > 1]:
            raise ValueError(f"{twice[0]} is in it several times, under different prefixes; keep one of them")
    stripped = _description(names) + (f", without {_COUNTED!r}" if _COUNTED in tensors else "")
    backbone, head = ({name: tensors[key] for key, name in part.items()} for part in (names, head))
    return Network(backbone, head, stripped)


def with_counters(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """The arrays with an integer `num_batches_tracked` for every batch normalisation, and a description of changes.

    PyTorch before 0.4.1 did not count, and some tools convert all tensors to floating point. The counters play no
    part in what a network computes.
    """
    complete, missing, floats = {}, 0, 0
    for key, value in arrays.items():
        if key.endswith(_COUNTER) and jnp.issubdtype(value.dtype, jnp.floating) and _is_whole(value):
            value, floats = value.astype(np.int64), floats + 1
        complete[key] = value
        counter = key.removesuffix(_VARIANCE) + _COUNTER
        if key.endswith(_VARIANCE) and counter not in arrays:
            complete[counter] = np.zeros((), np.int64)
            missing += 1
    notes = [f", {missing} missing num_batches_tracked set to 0"] * bool(missing)
    notes += [f", {floats} num_batches_tracked of floating point"] * bool(floats)
    return complete, "".join(notes)


def _is_whole(value: np.ndarray) -> bool:
    exact = value.astype(np.float64)
    return bool((np.isfinite(exact) & (exact == np.round(exact)) & (abs(exact) < 2**53)).all())


def unwrapped(key: str) -> str:
    """A key without the names of wrappers (torch.compile, data parallel, FSDP), in any position."""
    *parents, name = key.split(".")
    return ".".join([*(parent for parent in parents if parent not in _WRAPPERS), name])


def _without_shared_prefix(names: dict[str, str], but: str = "") -> dict[str, str]:
    """Names without the outer modules that all of them share, up to one whose prefix is `but`.

    A module of numbered ones is not stripped: it is a list of layers, such as `features.` of a RepViT.
    """
    while True:
        shared = {name[: name.find(".") + 1] for name in names.values()}
        prefix = shared.pop() if len(shared) == 1 else ""
        rest = {key: name.removeprefix(prefix) for key, name in names.items()}
        if prefix in ("", but) or any(name[0].isdigit() for name in rest.values()):
            return names
        names = rest


def _description(names: Mapping[str, str]) -> str:
    """A description of what was stripped, such as `, keys under 'module.backbone.'`; empty if nothing was."""
    prefixes = {key.removesuffix(name) if key.endswith(name) else None for key, name in names.items()}
    inside = ", names of wrappers removed inside keys" if None in prefixes else ""
    outside = sorted(prefix for prefix in prefixes if prefix)
    some = "some " if "" in prefixes else ""
    return (f", {some}keys under {' or '.join(map(repr, outside))}" if outside else "") + inside


def head_prefix(backbone_prefix: str) -> str:
    """The prefix of the projection head beside a backbone with this prefix."""
    return backbone_prefix.removesuffix(PLAIN) + _HEAD


def join_network(backbone: Mapping[str, Any], prefix: str, head: Mapping[str, Any]) -> dict[str, Any]:
    """Keys as training code has them: the inverse of `split_network` for the prefixes `backbone.` and its wrapped form.

    `prefix` is that of the backbone.
    """
    named = {prefix + key: value for key, value in backbone.items()}
    return named | {head_prefix(prefix) + key: value for key, value in head.items()}


def under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The entries whose keys start with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
