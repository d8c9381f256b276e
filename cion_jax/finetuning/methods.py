"""Fine-tuning methods by name, as `config.method` gives it."""

import importlib

from cion_jax.finetuning.method import Method
from cion_jax.runtime.config import Config

# name -> (module of this package, class); the settings are the config's group of the same name. Modules are imported
# when a method is first asked for.
METHODS = {
    "supervised": ("supervised", "Supervised"),
    "mgn": ("mgn", "MGN"),
    "cluster_contrast": ("cluster_contrast", "ClusterContrast"),
}


def create_method(config: Config) -> Method:
    """The method that `config.method` names, with the settings of its group of the config.

    Raises:
        ValueError: no such method.
    """
    if config.method not in METHODS:
        raise ValueError(f"config.method {config.method!r} is unknown; choose from {', '.join(METHODS)}")
    module, name = METHODS[config.method]
    return getattr(importlib.import_module(f"cion_jax.finetuning.{module}"), name)(config[config.method])
