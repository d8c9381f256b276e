"""The whole method without a labelled extractor, on rendered people: `cion_jax/configs/bootstrap.py`."""

from cion_jax.configs.bootstrap import get_config

__all__ = ["get_config"]
