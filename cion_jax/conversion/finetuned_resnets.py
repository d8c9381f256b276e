"""Keys of a ResNet within the fine-tuned networks of the released FastReID (MGN) and Cluster-Contrast.

Both keep the ResNet as a sequence without names, so that its modules are numbered: 0 and 1 are `conv1` and `bn1`, 4
to 7 the stages. MGN's shared part ends with the first block of stage 3, which is module 6 itself.
"""

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

_STEM = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5"}
# a key that tells the network -> what precedes its ResNet's keys, and the released number of each module there
_NUMBERS = {
    "b1_head.pool_layer.p": ("backbone.", _STEM | {"layer3.0": "6"}),
    "feat_bn.weight": ("base.", _STEM | {"layer3": "6", "layer4": "7"}),
}


def released_keys(arrays: Mapping[str, Value]) -> dict[str, Value]:
    """A state dict of this package under the released keys, in the same order."""
    return _renamed(arrays, by_number=False)


def package_keys(arrays: Mapping[str, Value]) -> dict[str, Value]:
    """A released state dict under the keys of this package, in the same order."""
    return _renamed(arrays, by_number=True)


def _renamed(arrays: Mapping[str, Value], *, by_number: bool) -> dict[str, Value]:
    for mark, (prefix, numbers) in _NUMBERS.items():
        if mark in arrays:
            pairs = [(f"{prefix}{name}.", f"{prefix}{number}.") for name, number in numbers.items()]
            return {_replaced(key, pairs, by_number): value for key, value in arrays.items()}
    return dict(arrays)


def _replaced(key: str, pairs: list[tuple[str, str]], by_number: bool) -> str:
    for name, number in pairs:
        old, new = (number, name) if by_number else (name, number)
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key
