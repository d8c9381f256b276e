"""Configuration type and helpers."""

from typing import Any

# A locked `ml_collections.ConfigDict` from configs/. Its fields are only known at run time, hence `Any`; reading a
# misspelt name raises an error that suggests the closest match.
Config = Any


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested dictionaries, keyed by dotted path."""
    leaves = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return leaves
