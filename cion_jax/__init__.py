"""CION in JAX: identity correlation across videos and identity-guided self-distillation (NeurIPS 2024)."""

__version__ = "0.1.0"
