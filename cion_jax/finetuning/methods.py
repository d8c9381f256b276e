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

# The file of configs/finetune with the settings of each method; uda.py has those of usl.py.
CONFIGS = {"supervised": "supervised", "mgn": "mgn", "cluster_contrast": "usl"}


def create_method(config: Config) -> Method:
    """The method that `config.method` names, with the settings of its group of the config.

    Raises:
        ValueError: no such method, or a config of another one.
    """
    if config.method not in METHODS:
        raise ValueError(f"config.method {config.method!r} is unknown; choose from {', '.join(METHODS)}")
    if config.method not in config:
        (given,) = METHODS.keys() & config.keys()
        raise ValueError(
            f"config.method is {config.method!r}, but this config has the settings of {given!r} only; take "
            f"--config=configs/finetune/{CONFIGS[config.method]}.py:<data set>/<model> and leave config.method out"
        )
    module, name = METHODS[config.method]
    return getattr(importlib.import_module(f"cion_jax.finetuning.{module}"), name)(config[config.method])
