"""Identity-guided self-distillation: `python -m cion_jax.pretrain --config=configs/resnet50_ibn.py --workdir=W`."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from cion_jax.distillation.groupings import pretrain_groupings
from cion_jax.runtime.commands import run
from cion_jax.samples import check_images, read_samples


def main(argv: list[str]) -> None:
    del argv
    config, workdir = flags.FLAGS.config, Path(flags.FLAGS.workdir)
    for name in ("samples", "images"):
        if not config.data[name]:
            raise ValueError(f"no training data: give --config.data.{name} (see docs/data.md)")
    table = read_samples(config.data.samples)
    check_images(table, config.data.images)
    pretrain_groupings(config, table, Path(config.data.images), workdir)


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "A file of configs/.", lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.mark_flag_as_required("config")
    run(main, shares_work=True)
