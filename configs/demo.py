"""The whole method on rendered people, no data needed: `cion_jax/configs/demo.py`."""

from cion_jax.configs.demo import get_config

__all__ = ["get_config"]
