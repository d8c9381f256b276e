"""Supervised fine-tuning, `<data set>/<model>`: `cion_jax/configs/finetune.py`."""

from cion_jax.configs.finetune import get_config

__all__ = ["get_config"]
