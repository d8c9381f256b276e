"""Samples: the table of person crops, its readers and writers, image decoding and packed image stores."""

from cion_jax.samples.batches import ImageBatch, load_batches
from cion_jax.samples.formats import read_rows, read_samples, write_annotations, write_samples
from cion_jax.samples.images import (
    FINDS_DAMAGE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INTERPOLATION,
    DamagedImage,
    UndecodableImage,
    decode_image,
    load_image,
    resize,
)
from cion_jax.samples.stores.sources import check_images, open_images
from cion_jax.samples.table import SampleTable

__all__ = [
    "FINDS_DAMAGE",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "INTERPOLATION",
    "DamagedImage",
    "ImageBatch",
    "SampleTable",
    "UndecodableImage",
    "check_images",
    "decode_image",
    "load_batches",
    "load_image",
    "open_images",
    "read_rows",
    "read_samples",
    "resize",
    "write_annotations",
    "write_samples",
]
