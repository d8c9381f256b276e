"""Unsupervised domain adaptation, `<data set>/<model>`: `cion_jax/configs/finetune_clusters.py`."""

from cion_jax.configs.finetune_clusters import get_config

__all__ = ["get_config"]
