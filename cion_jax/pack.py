"""Packs the images of a sample table into a few large files, for file systems that are slow on small ones.

    python -m cion_jax.pack --samples=S --images=DIR --out=PACK [--shard_images=8192] [--verify]

The same command continues a pack that was interrupted. Training takes `--config.data.images=PACK` like a folder.
"""

from absl import flags

from cion_jax.runtime.commands import run
from cion_jax.runtime.progress import progress
from cion_jax.samples import check_images, open_images, read_samples
from cion_jax.samples.stores.packed import damaged_shards, is_packed, pack


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    table = read_samples(values.samples)
    if not is_packed(values.out):
        check_images(table, values.images, sample=len(table))  # one that is missing would stop the pack far into it
    read = open_images(values.images).read
    pack(table["file_path"], read, values.out, shard_images=values.shard_images, progress=progress)
    if values.verify and (damaged := damaged_shards(values.out, progress=progress)):
        raise ValueError(
            f"{len(damaged)} shards of {values.out} are damaged, {damaged[0].name} first; remove them with their "
            f".sha256 files and pack.json, and run this again without --verify"
        )
    print(f"{values.out} is complete{' and as it was packed' if values.verify else ''}.")


if __name__ == "__main__":
    flags.DEFINE_string("samples", None, "Sample table whose images are packed.", required=True)
    flags.DEFINE_string("images", None, "Folder that file_path is relative to, or an LMDB.", required=True)
    flags.DEFINE_string("out", None, "Folder of the store.", required=True)
    flags.DEFINE_integer("shard_images", 8192, "Images of a shard.", lower_bound=1)
    flags.DEFINE_bool("verify", False, "Read the whole store and compare it with the hashes taken when it was packed.")
    run(main)
