"""Synthetic street: rendered people, cameras and an imperfect tracker, for the demo and for tests."""

from cion_jax.street.build import build_street
from cion_jax.street.config import StreetConfig, street_config

__all__ = ["StreetConfig", "build_street", "street_config"]
