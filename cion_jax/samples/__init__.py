"""Samples: the table of person crops, its readers and writers, and image decoding."""

from cion_jax.samples.batches import ImageBatch, load_batches
from cion_jax.samples.formats import read_samples, write_annotations, write_samples
from cion_jax.samples.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    UndecodableImage,
    check_images,
    decode_image,
    load_image,
    resize,
)
from cion_jax.samples.table import SampleTable

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ImageBatch",
    "SampleTable",
    "UndecodableImage",
    "check_images",
    "decode_image",
    "load_batches",
    "load_image",
    "read_samples",
    "resize",
    "write_annotations",
    "write_samples",
]
