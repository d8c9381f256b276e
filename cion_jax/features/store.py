"""Feature files: the features of a sample table, the table of the rows they belong to, and a description.

`F.npy` holds the features, `F.samples.parquet` the rows, and `F.json`, written last, how the features were made.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from flax import nnx

import cion_jax
from cion_jax.features.extraction import RGB, Extraction, extract_features
from cion_jax.runtime.files import write_json
from cion_jax.runtime.shards import WHOLE, Shard
from cion_jax.samples import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INTERPOLATION,
    SampleTable,
    check_images,
    open_images,
    read_samples,
    write_samples,
)

EXAMPLES = 10  # how many undecodable images a report names


def extract(
    model: nnx.Module,
    table: SampleTable,
    images: str | os.PathLike,
    out: str | os.PathLike,
    *,
    about: Mapping[str, Any],
    size: tuple[int, int] = (256, 128),
    mean: RGB = IMAGENET_MEAN,
    std: RGB = IMAGENET_STD,
    batch_size: int = 64,
    dtype: str = "float16",
    shard: Shard = WHOLE,
) -> Extraction:
    """Extracts features of the table's images in `images` into `out` (`.npy`) and the files beside it.

    `about` (model, weights, ...) goes into the `.json`, which is written last: where it is, all is there. A shard
    writes the same three files for its rows, under the name of `shard_file`; `cion_jax.join` makes one of them.
    """
    if Path(out).suffix != ".npy":
        raise ValueError(f"{out}: features are written as .npy, give a name that ends in .npy")
    out = shard_file(out, shard)
    check_images(table, images)
    out.with_suffix(".json").unlink(missing_ok=True)
    paths, load = table["file_path"], open_images(images).load
    result = extract_features(
        model,
        paths,
        size=size,
        mean=mean,
        std=std,
        batch_size=batch_size,
        dtype=dtype,
        out=out,
        load=load,
        shard=shard,
    )
    write_samples(table.select(result.rows), aligned_samples(out))
    report = {
        **about,
        "size": size,
        "mean": mean,
        "std": std,
        "interpolation": INTERPOLATION,
        "l2_normalised": True,
        "rows": result.features.shape[0],
        "dim": result.features.shape[1],
        "dtype": dtype,
        "undecodable": len(result.undecodable),
        "undecodable_examples": list(result.undecodable.values())[:EXAMPLES],
        "versions": {"cion_jax": cion_jax.__version__, "jax": jax.__version__},
    }
    if shard != WHOLE:  # what tells `cion_jax.join` that parts belong together
        listed = hashlib.sha256("\n".join(paths).encode()).hexdigest()
        report["shard"] = {"index": shard.index, "count": shard.count, "paths_sha256": listed}
    write_json(out.with_suffix(".json"), report)
    return result


def aligned_samples(features: str | os.PathLike) -> Path:
    """Where `extract` writes the sample table whose rows are those of the feature file."""
    return Path(features).with_suffix(".samples.parquet")


def shard_file(out: str | os.PathLike, shard: Shard) -> Path:
    """The feature file of one shard of `out`; of the only one, `out` itself."""
    out = Path(out)
    return out if shard == WHOLE else out.with_name(f"{out.stem}.shard-{shard.index}-of-{shard.count}.npy")


def list_samples(samples: str | os.PathLike | None, images: str | os.PathLike, out: str | os.PathLike) -> SampleTable:
    """The table `samples`, or without one that of all images in the folder `images` and below it.

    Raises ValueError for what is no table or no folder of images, and for an `out` that would replace the table.
    """
    open_images(images)  # whatever is read, it says what is wrong with the folder
    if samples and Path(samples).resolve() == Path(out).with_suffix(".json").resolve():
        raise ValueError(f"{samples}: {out} has its description here, it would replace the table; give another --out")
    return read_samples(samples or images)
