"""The backbones of ReIDZoo: NHWC images in, one embedding per image out."""

from cion_jax.models.registry import create_model, list_models, model_info

__all__ = ["create_model", "list_models", "model_info"]
