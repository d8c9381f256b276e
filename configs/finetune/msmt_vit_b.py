"""Supervised fine-tuning of vit_base on msmt17: `cion_jax/configs/finetune.py`."""

from ml_collections import ConfigDict

from cion_jax.configs import finetune


def get_config() -> ConfigDict:
    return finetune.get_config("msmt17/vit_base")
