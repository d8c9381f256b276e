"""Sec. 3.3: identity-guided self-distillation."""

from cion_jax.distillation.loss import identity_distillation_loss

__all__ = ["identity_distillation_loss"]
