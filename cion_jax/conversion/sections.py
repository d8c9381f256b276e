"""Sections of a checkpoint: which of its dictionaries is the state dict to read."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cion_jax.conversion.files.unpickler import Placeholder, Tensor, name_of
from cion_jax.runtime.progress import console
from cion_jax.runtime.unpickling import NumpyArray

NETWORKS = ("teacher", "student")
# Where training code keeps its network, and the moving average (EMA) of it; the former is preferred.
_RAW = ("model", "state_dict", "model_state_dict", "net", "network", "params", "module", "backbone")
_AVERAGED = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "ema_model", "net_ema", "params_ema")
_NAMES = NETWORKS + _RAW + _AVERAGED
_DEPTH = 4


class Section(NamedTuple):
    """A state dict in a file.

    Attributes:
        tensors: descriptions of its tensors, or arrays, by key.
        path: names of the dictionaries that lead to it, joined by dots; "" for the file itself.
        others: paths of other sections that hold networks by their names; not those that `--which` takes.
    """

    tensors: Mapping[str, Any]
    path: str
    others: tuple[str, ...] = ()


def select_section(content: Any, *, which: str = "teacher", section: str | None = None) -> Section:
    """The state dict of the requested network.

    Args:
        content: what a file holds.
        which: "teacher" or "student", where the file has sections of these names.
        section: path of the section to take, instead of the one that names and `which` suggest.

    Raises:
        ValueError: no such section, or not one of tensors alone. The message does not name the file.
    """
    if which not in NETWORKS:
        raise ValueError(f"--which={which} is unknown; choose teacher or student")
    if not isinstance(content, dict):
        raise ValueError(f"expected a state dict or a checkpoint, got {_described(content)}")
    if section is not None:
        return _named_by_user(content, section)
    known = dict(known_sections(content))
    networks = {path: network for path in known for network in NETWORKS if network in path.split(".")}
    path = next((path for path, network in networks.items() if network == which), None)
    if path is None:
        if networks:
            raise ValueError(f"it has no {which}; give --which={next(iter(networks.values()))}")
        if which == "student":
            raise ValueError("it has no student; the networks in it are not named, leave --which out")
        path = next(iter(known), "")
    tensors = known.get(path, content)
    _check_tensors_only(tensors, path, content)
    return Section(tensors, path, tuple(other for other in known if other != path and other not in networks))


def report_others(path: str | os.PathLike, taken: str, others: Sequence[str]) -> None:
    """Prints which section of a file was taken, which others it has, and how to choose."""
    names = ", ".join(map(repr, others))
    note = f"{path}: the weights are those of {f'section {taken!r}' if taken else 'its outermost level'}; it also has "
    note += f"{names}. --section chooses one; cion_jax.convert --section=... --to=... writes it to a file of its own"
    console.print(note, markup=False, highlight=False, soft_wrap=True)


def _named_by_user(content: Mapping, path: str) -> Section:
    sections = dict(_state_dicts(content))
    if path not in sections:
        raise ValueError(f"--section={path}: it has no state dict there; {_listed(sections)}")
    return Section(sections[path], path)


def known_sections(content: Mapping, depth: int = _DEPTH) -> Iterator[tuple[str, Mapping]]:
    """Dictionaries under usual names, also in one another, in order of preference."""
    for name in _NAMES:
        if isinstance(value := content.get(name), dict):
            nested = [] if _holds_tensors(value) or not depth else list(known_sections(value, depth - 1))
            yield from ((f"{name}.{path}", inner) for path, inner in nested)
            if not nested:
                yield name, value


def _state_dicts(content: Mapping, prefix: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Mapping]]:
    """All dictionaries of tensors alone, under any names."""
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, dict):
            if _holds_tensors(value):
                yield prefix + name, value
            elif depth:
                yield from _state_dicts(value, f"{prefix}{name}.", depth - 1)


def _holds_tensors(section: Mapping) -> bool:
    return bool(section) and all(isinstance(key, str) and _is_tensor(value) for key, value in section.items())


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray) or (isinstance(value, NumpyArray) and value.values is not None)


def _check_tensors_only(section: Mapping, path: str, content: Mapping) -> None:
    if _holds_tensors(section):
        return
    others = [
        f"{key if isinstance(key, str) else name_of(key)} ({_described(value)})"
        for key, value in section.items()
        if not (isinstance(key, str) and _is_tensor(value))
    ]
    what = f"these hold no tensor: {', '.join(others[:5])}" if others else "it is empty"
    raise ValueError(
        f"{path or 'the file'} is not a state dict: {what}. Expected tensors at the top, or under one of "
        f"{', '.join(_NAMES)}; {_listed(dict(_state_dicts(content)))}"
    )


def _listed(sections: Mapping[str, Mapping]) -> str:
    if not sections:
        return "no section of this file is one"
    return f"--section takes any of {', '.join(list(sections)[:12])}"


def _described(value: Any) -> str:
    name = name_of(value)
    if isinstance(value, Placeholder):
        return f"an object of {name}, whose code is not run; load it in PyTorch and save its state_dict() instead"
    return name
