"""The data of a fine-tuning run: training images and the benchmark that the network is scored on."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cion_jax.distillation.groupings import share_of_identities
from cion_jax.evaluation import Benchmark
from cion_jax.evaluation.ranking import related_images
from cion_jax.evaluation.run import BENCHMARKS
from cion_jax.finetuning.method import TrainingData
from cion_jax.runtime.config import Config
from cion_jax.samples import SampleTable, check_images, read_samples
from cion_jax.samples.readers import read_dataset
from cion_jax.samples.readers.labelled import SPLITS


class Samples(NamedTuple):
    """A sample table and the folder or store that its paths are relative to."""

    table: SampleTable
    images: Path


def read_training(config: Config) -> Samples:
    """The training images of `config.data`: a sample table or those of a data set, all or a share of the identities.

    Raises:
        ValueError: neither or both are given, the table or data set cannot be read, MSMT17 without its split, or images
            that are missing.
    """
    table, images = _read(config.data)
    ratio = config.data.identities_ratio
    return Samples(table if ratio == 1 else share_of_identities(table, ratio, config.seed), images)


def _read(data: Config) -> Samples:
    if bool(data.samples) == bool(data.root):
        raise ValueError(
            "give training images: a data set's folder with --config.data.root, or a sample table with "
            "--config.data.samples and --config.data.images" + (", not both" if data.root else "")
        )
    if data.samples:
        if not data.images:
            raise ValueError("--config.data.samples needs --config.data.images, the folder that its paths start from")
        samples = Samples(read_samples(data.samples), Path(data.images))
        check_images(*samples)
        return samples
    if data.dataset == "msmt17" and data.split not in SPLITS:
        raise ValueError(
            f"data.split is {data.split!r}; MSMT17 is trained on --config.data.split=train+val (as in the paper) or "
            "--config.data.split=train"
        )
    options = {"split": data.split} if data.split else {}
    return Samples(read_dataset(data.dataset, data.root, **options).samples, Path(data.root))


def training_data(samples: Samples, *, needs_identities: bool) -> TrainingData:
    """Labels and cameras of a sample table; identities are numbered in ascending order.

    Raises:
        ValueError: `needs_identities` and the table has none.
    """
    table = samples.table
    labels = np.full(len(table), -1)
    if "identity" in table.columns:
        used = table["identity"] >= 0
        labels[used] = np.unique(table["identity"][used], return_inverse=True)[1]
    if needs_identities and labels.max() < 0:
        raise ValueError("the training table has no identities (column `identity`), which this method learns from")
    cameras = np.unique(table["camera"], return_inverse=True)[1] if "camera" in table.columns else None
    return TrainingData(table["file_path"], samples.images, labels, cameras)


def read_benchmark(config: Config) -> Benchmark | None:
    """The benchmark of `config.evaluate`, by default that of `config.data`; None if there is no data set.

    Raises:
        ValueError: a data set that cannot be read, or no query with a match from another camera.
    """
    dataset, root = config.evaluate.dataset or config.data.dataset, config.evaluate.root or config.data.root
    if not root:
        return None
    if dataset not in BENCHMARKS:
        raise ValueError(f"evaluate.dataset {dataset!r} is no benchmark; choose from {', '.join(BENCHMARKS)}")
    benchmark = BENCHMARKS[dataset](str(root))
    query, gallery = benchmark.query, benchmark.gallery
    related = related_images(query.ids, gallery.ids, query.cameras, gallery.cameras, ignore_camera=False)
    if not any(len(images.matches) for images in related):
        raise ValueError(
            f"{benchmark.source}: no query has a match from another camera in the gallery, so nothing can be scored "
            f"(cameras of the queries: {sorted(set(query.cameras.tolist()))[:5]}); give another --config.evaluate.root"
        )
    return benchmark
