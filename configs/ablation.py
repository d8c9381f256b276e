"""The paper's ablations, one config per row: `cion_jax/configs/ablation.py`."""

from cion_jax.configs.ablation import get_config

__all__ = ["get_config"]
