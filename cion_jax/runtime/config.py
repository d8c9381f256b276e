"""The type of a configuration."""

from typing import Any

# A locked `ml_collections.ConfigDict` from configs/. Its fields are known at run time only, so type checkers are
# told nothing; a wrong name fails when it is read, with the nearest right one.
Config = Any


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries by their dotted names."""
    leaves = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return leaves
