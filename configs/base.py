"""All settings of all stages, explained in `cion_jax/configs/base.py`."""

from cion_jax.configs.base import get_config

__all__ = ["get_config"]
