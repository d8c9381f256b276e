"""Extracts features of the images of a folder, or of those that a sample table lists.

    python -m cion_jax.extract --images=DIR --model=vit_base --weights=W --out=F.npy
    python -m cion_jax.extract --samples=S --images=DIR --model=vit_base --weights=W --out=F.npy

Three files are written:

- `F.npy`: L2-normalised features, `[rows, dim]`, ready to be memory-mapped;
- `F.samples.parquet`: the sample table, row by row as the features. Without S it lists every image in DIR and its
  subfolders by path; images that cannot be decoded are left out;
- `F.json`, written last: model, weights, preprocessing and precision.

Every run lists DIR and computes all features again, so that they never describe earlier contents of DIR. DIR may also
be a store made by `cion_jax.pack`, or an LMDB of encoded images.

Several machines share the work with `--shard=i/n`, counted from 0: `--shard=$SLURM_ARRAY_TASK_ID/16` in an array of
16. Then `python -m cion_jax.join --out=F.npy` joins their files into what a single call would have written.
"""

from pathlib import Path

from absl import flags

from cion_jax.features.extraction import DTYPES, PRECISIONS
from cion_jax.features.store import EXAMPLES, aligned_samples, extract, list_samples, shard_file
from cion_jax.finetuning.weights import Loaded, load_network, untrained
from cion_jax.runtime.commands import check_weights_given, define_model_flags, run
from cion_jax.runtime.progress import console
from cion_jax.runtime.shards import Shard


def _model() -> Loaded:
    """The network that the flags name."""
    values = flags.FLAGS
    check_weights_given(values.weights, random_weights=values.random_weights)
    if not values.weights:
        return untrained(values.model)
    return load_network(
        values.model, values.weights, section=values.section, resample_positions=values.resample_positions
    )


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    shard = Shard.parse(values.shard)
    table = list_samples(values.samples, values.images, values.out)
    loaded = _model()
    result = extract(
        loaded.network,
        table,
        values.images,
        values.out,
        about={"model": values.model, **loaded.about, "samples": values.samples, "images": values.images},
        **loaded.preprocessing.resized(values.height, values.width)._asdict(),
        batch_size=values.batch_size,
        precision=values.precision,
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
    flags.DEFINE_enum(
        "precision", "auto", PRECISIONS, "Number type that the model computes in; auto: bfloat16 on GPUs, else float32."
    )
    flags.DEFINE_enum("dtype", "float16", DTYPES, "Number type of the features.")
    flags.DEFINE_string("shard", "0/1", "i/n: the i-th, from 0, of n calls that share the work; then cion_jax.join.")
    run(main)
