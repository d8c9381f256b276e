"""The paper's ablations, one row each: `cion_jax/configs/ablation.py`."""

from cion_jax.configs.ablation import get_config

__all__ = ["get_config"]
