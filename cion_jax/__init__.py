"""CION in JAX: identity correlation across videos and identity-guided self-distillation (NeurIPS 2024).

The names below are the package's public face. Each is imported when it is first used, so that `import cion_jax` and
worker processes that need none of them stay fast. `cion_jax.correlation.correlate` is not among them, since
`cion_jax.correlate` is a command.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cion_jax.conversion import load_state_dict, load_weights, state_dict, write_weights
    from cion_jax.correlation import noise
    from cion_jax.distillation import identity_distillation_loss
    from cion_jax.features.extraction import extract_features
    from cion_jax.models import create_model, list_models
    from cion_jax.samples import read_samples

__version__ = "0.1.0"

_HOME = {
    "create_model": "cion_jax.models",
    "extract_features": "cion_jax.features.extraction",
    "identity_distillation_loss": "cion_jax.distillation",
    "list_models": "cion_jax.models",
    "load_state_dict": "cion_jax.conversion",
    "load_weights": "cion_jax.conversion",
    "noise": "cion_jax.correlation",
    "read_samples": "cion_jax.samples",
    "state_dict": "cion_jax.conversion",
    "write_weights": "cion_jax.conversion",
}

__all__ = [
    "create_model",
    "extract_features",
    "identity_distillation_loss",
    "list_models",
    "load_state_dict",
    "load_weights",
    "noise",
    "read_samples",
    "state_dict",
    "write_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cion_jax' has no attribute {name!r}; its public names are {', '.join(_HOME)}")
    return getattr(import_module(_HOME[name]), name)
