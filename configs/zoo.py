"""Any registered model with the paper's recipe: --config=configs/zoo.py:resnet18_ibn

The paper adapts the batch size and the number of local views to each model's memory (Table 5); set
--config.pretrain.batch_size and --config.pretrain.views.local_views to values that fit your devices.
Expected scores: `cion_jax.models.model_info(name)`.
"""

from ml_collections import ConfigDict

from cion_jax.configs import base
from cion_jax.models import list_models


def get_config(name: str) -> ConfigDict:
    config = base.get_config()
    if name not in list_models():
        raise ValueError(f"configs/zoo.py:{name}: no such model; choose from {', '.join(list_models())}")
    config.model = name
    return config
