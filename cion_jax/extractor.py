"""Trains the feature extractor of identity correlation on labelled identities.

    python -m cion_jax.extractor --config=configs/vit_b.py --samples=S --images=DIR --out=E.pth

`cion_jax.finetuning.contrastive` has the network and the losses. A call that was stopped is continued by the same one.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from cion_jax.finetuning.extractor import train_extractor
from cion_jax.runtime.commands import run
from cion_jax.samples import check_images, read_samples


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    table = read_samples(values.samples)
    check_images(table, values.images)
    train_extractor(values.config, table, Path(values.images), Path(values.out))
    print(values.out)


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "A file of configs/.", lock_config=True)
    flags.mark_flag_as_required("config")
    flags.DEFINE_string("samples", None, "Labelled sample table, with an identity column.", required=True)
    flags.DEFINE_string("images", None, "Folder that the table's file_path is relative to.", required=True)
    flags.DEFINE_string("out", None, "Weights to write (.pth).", required=True)
    run(main)
