"""Features of the images of a folder or store, all of them or those of a sample table.

    python -m cion_jax.extract --images=DIR --model=vit_base --weights=W --out=F.npy
    python -m cion_jax.extract --samples=S --images=DIR --model=vit_base --weights=W --out=F.npy

writes three files: `F.npy`, the features, L2-normalised, `[rows, dim]`, to be memory-mapped;
`F.samples.parquet`, the sample table whose rows these are (S, or without it all images in DIR and below it by
path; without the images that could not be decoded); and, last, `F.json`, how they were made: model, weights and
preprocessing. Every run lists DIR and computes all features anew, so they never belong to what DIR held before.
DIR may also be a store that `cion_jax.pack` made, or an LMDB of encoded images.

Many machines share the work with `--shard=i/n`, i from 0: `--shard=$SLURM_ARRAY_TASK_ID/16` in an array of 16. When
all are done, `python -m cion_jax.join --out=F.npy` makes of their parts what one call would have written.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from flax import nnx

import cion_jax
from cion_jax.conversion import load_with_provenance
from cion_jax.features.extraction import DTYPES, RGB, Extraction, extract_features
from cion_jax.models import create_model
from cion_jax.runtime.commands import run
from cion_jax.runtime.files import write_json
from cion_jax.runtime.progress import console
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


def define_model_flags() -> None:
    """Flags of every command that runs a model. Not defined on import: libraries import this module too."""
    flags.DEFINE_string("model", None, "Name of the model, for example resnet50_ibn.", required=True)
    flags.DEFINE_string("weights", None, "Its weights: a ReIDZoo .pth, or a file written by convert.")
    flags.DEFINE_bool("random_weights", False, "Use the model untrained, instead of --weights.")
    flags.DEFINE_integer("height", 256, "Height that images are resized to.", lower_bound=1)
    flags.DEFINE_integer("width", 128, "Width that images are resized to.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 64, "Images per batch.", lower_bound=1)


def _described_model() -> tuple[nnx.Module, dict[str, Any]]:
    """The model of the flags, and which it is: its name, the weight file and what was taken of it."""
    values = flags.FLAGS
    check_weights_given(values.weights, random_weights=values.random_weights)
    model = create_model(values.model)
    if not values.weights:
        return model, {"model": values.model, "weights": None}
    return model, {"model": values.model, **load_with_provenance(model, values.weights)}


def check_weights_given(weights: str | Sequence[str] | None, *, random_weights: bool) -> None:
    """Raises ValueError unless there are either `weights` or `random_weights`, of `define_model_flags`."""
    if bool(weights) == random_weights:
        raise ValueError("give the model's weights with --weights=FILE, or --random_weights for an untrained one")


def list_samples(samples: str | os.PathLike | None, images: str | os.PathLike, out: str | os.PathLike) -> SampleTable:
    """The table `samples`, or without one that of all images in the folder `images` and below it.

    Raises ValueError for what is no table or no folder of images, and for an `out` that would replace the table.
    """
    open_images(images)  # whatever is read, it says what is wrong with the folder
    if samples and Path(samples).resolve() == Path(out).with_suffix(".json").resolve():
        raise ValueError(f"{samples}: {out} has its description here, it would replace the table; give another --out")
    return read_samples(samples or images)


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    shard = Shard.parse(values.shard)
    table = list_samples(values.samples, values.images, values.out)
    model, about = _described_model()
    result = extract(
        model,
        table,
        values.images,
        values.out,
        about={**about, "samples": values.samples, "images": values.images},
        size=(values.height, values.width),
        batch_size=values.batch_size,
        dtype=values.dtype,
        shard=shard,
    )
    out = shard_file(values.out, shard)
    if result.undecodable:
        _print_undecodable(result.undecodable, len(table), aligned_samples(out))
    rows, dim = result.features.shape
    print(f"{out}: {rows} rows, {dim} dimensions, {values.dtype}")


def _print_undecodable(undecodable: dict[int, str], total: int, samples: Path) -> None:
    left = len(undecodable) - EXAMPLES
    lines = [
        f"{len(undecodable)} of {total} images could not be decoded and are left out; {samples} lists the others:",
        *list(undecodable.values())[:EXAMPLES],
        *([f"... and {left} more"] if left > 0 else []),
    ]
    console.print("\n  ".join(lines), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    define_model_flags()
    flags.DEFINE_string("samples", None, "Sample table (.parquet, .json, .jsonl or .csv). Default: all of --images.")
    flags.DEFINE_string("images", None, "Folder of images, which the table's file_path is relative to.", required=True)
    flags.DEFINE_string("out", None, "Feature file to write (.npy).", required=True)
    flags.DEFINE_enum("dtype", "float16", DTYPES, "Number type of the features.")
    flags.DEFINE_string("shard", "0/1", "i/n: the i-th, from 0, of n calls that share the work; then cion_jax.join.")
    run(main)
