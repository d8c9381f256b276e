"""Unsupervised fine-tuning with Cluster-Contrast, `<data set>/<model>`: `cion_jax/configs/finetune_clusters.py`."""

from ml_collections import ConfigDict

from cion_jax.configs import finetune_clusters


def get_config(recipe: str = "market1501/resnet50_ibn") -> ConfigDict:
    config = finetune_clusters.get_config(recipe)
    if config.data.dataset == "msmt17":
        config.evaluate.every_epochs = 50  # as released
    return config
