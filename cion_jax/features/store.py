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
from cion_jax.features.extraction import RGB, Extraction, chosen_precision, extract_features
from cion_jax.runtime.files import is_too_long, read_json, write_json
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

EXAMPLES = 10  # undecodable images named in the description
# Fields of the description that determine the features of an image.
EXTRACTOR = ("model", "adaptation", "weights_sha256", "weights_taken", "size", "mean", "std", "interpolation")


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
    precision: str = "auto",
    dtype: str = "float16",
    shard: Shard = WHOLE,
) -> Extraction:
    """Extracts features of the table's images in `images` into `out` (`.npy`) and the files beside it.

    The `.json` is written last, so its presence marks the files as complete. A shard writes the same three files for
    its rows, named by `shard_file`; `cion_jax.features.joining.join` joins them.

    Args:
        model: maps normalised images `[b, h, w, 3]` to features `[b, dim]`.
        table: the samples; `file_path` is relative to `images`.
        images: folder, packed store or LMDB.
        out: the `.npy` to write.
        about: model, weights and the like, for the description.
        size: height and width in pixels that images are resized to.
        mean, std: normalisation of RGB in [0, 1].
        batch_size: images per batch.
        precision: number type that the model computes in: "float32", "bfloat16", or "auto": bfloat16 on GPUs.
        dtype: "float16" or "float32", of the stored features.
        shard: this call's part of the work.

    Raises:
        ValueError: `out` is not an `.npy` or its name is too long, images are missing, or none can be decoded.
    """
    if Path(out).suffix != ".npy":
        raise ValueError(f"{out}: features are written as .npy, give a name that ends in .npy")
    out, precision = shard_file(out, shard), chosen_precision(precision)
    if is_too_long(aligned_samples(out)):
        raise ValueError(f"{aligned_samples(out)}: the file name is too long; give a shorter --out")
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
        precision=precision,
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
        "precision": precision,
        "dtype": dtype,
        "undecodable": len(result.undecodable),
        "undecodable_examples": list(result.undecodable.values())[:EXAMPLES],
        "versions": {"cion_jax": cion_jax.__version__, "jax": jax.__version__},
    }
    if shard != WHOLE:  # lets `join` check that the parts list the same samples
        paths_sha256 = hashlib.sha256("\n".join(paths).encode()).hexdigest()
        report["shard"] = {"index": shard.index, "count": shard.count, "paths_sha256": paths_sha256}
    write_json(out.with_suffix(".json"), report)
    return result


def extractor_of(features: str | os.PathLike) -> dict[str, Any] | None:
    """The network, weights (SHA-256) and preprocessing that made a feature file; None if it has no description.

    Features can be compared only if this is equal.
    """
    description = Path(features).with_suffix(".json")
    if not description.exists():
        return None
    report = read_json(description)
    return {name: report.get(name) for name in EXTRACTOR}


def feature_files(features: str | os.PathLike) -> list[Path]:
    """The files that hold the rows of a feature file, in order: itself, or its parts if `join` did not copy them."""
    path, description = Path(features), Path(features).with_suffix(".json")
    if path.exists() or not description.exists():
        return [path]
    return [path.with_name(name) for name in read_json(description).get("parts", [path.name])]


def check_extractor(own: Mapping[str, Any], expected: Mapping[str, Any], source: str | os.PathLike) -> None:
    """Raises ValueError if the extractor of `source` differs from the expected one in a field that both state.

    Adapted features differ always: they are centered and whitened by the images that they were extracted with.
    """
    if own.get("adaptation") or expected.get("adaptation"):
        raise ValueError(
            f"{source}: adapted features are centered and whitened by their own images, so that no others can be "
            f"compared with them; correlate features that are not adapted, or everything from scratch"
        )
    shared = [name for name in EXTRACTOR if name in own and name in expected]
    if differ := [f"{name} {own[name]}, expected {expected[name]}" for name in shared if own[name] != expected[name]]:
        raise ValueError(f"{source}: another extractor than that of the correlated features: {'; '.join(differ)}")


def aligned_samples(features: str | os.PathLike) -> Path:
    """The sample table that `extract` writes beside a feature file, with the same rows."""
    return Path(features).with_suffix(".samples.parquet")


def shard_file(out: str | os.PathLike, shard: Shard) -> Path:
    """The feature file of one shard of `out`; `out` itself if the work is not sharded."""
    out = Path(out)
    return out if shard == WHOLE else out.with_name(f"{out.stem}.shard-{shard.index}-of-{shard.count}.npy")


def list_samples(samples: str | os.PathLike | None, images: str | os.PathLike, out: str | os.PathLike) -> SampleTable:
    """Reads the table `samples`; without one, lists all images in the folder `images` and its subfolders.

    Raises:
        ValueError: an unreadable table or folder, or an `out` whose description would overwrite the table.
    """
    open_images(images)  # reports a bad folder before anything is read
    if samples and Path(samples).resolve() == Path(out).with_suffix(".json").resolve():
        raise ValueError(f"{samples}: {out} has its description here, it would replace the table; give another --out")
    return read_samples(samples or images)
