"""Weights between PyTorch and Flax, both ways, by one set of rules."""

from cion_jax.conversion.state_dict import Comparison, compare, load_state_dict, signature, state_dict
from cion_jax.conversion.weights import load_weights, load_with_provenance, read_weights, reidzoo_prefix, write_weights

__all__ = [
    "Comparison",
    "compare",
    "load_state_dict",
    "load_weights",
    "load_with_provenance",
    "read_weights",
    "reidzoo_prefix",
    "signature",
    "state_dict",
    "write_weights",
]
