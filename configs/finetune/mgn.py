"""Supervised fine-tuning with MGN, `<data set>/<model>`: `cion_jax/configs/finetune_mgn.py`."""

from cion_jax.configs.finetune_mgn import get_config

__all__ = ["get_config"]
