"""Samples: the table of person crops, its readers and writers, and image decoding."""

from cion_jax.samples.table import SampleTable

__all__ = ["SampleTable"]
