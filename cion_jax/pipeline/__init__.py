"""The stages that `cion_jax.main` runs in one folder, and what they leave there."""
