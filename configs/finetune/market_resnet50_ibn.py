"""Supervised fine-tuning of resnet50_ibn on market1501: `cion_jax/configs/finetune.py`."""

from ml_collections import ConfigDict

from cion_jax.configs import finetune


def get_config() -> ConfigDict:
    return finetune.get_config("market1501/resnet50_ibn")
