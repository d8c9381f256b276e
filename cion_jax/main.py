"""From person crops to a pre-trained checkpoint: `python -m cion_jax.main --config=configs/demo.py --workdir=DIR`.

Runs the stages that the config names, each skipped when its output is already complete, and closes with a
summary, `report.json` and `report.html`.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from cion_jax.pipeline.run_report import write_report
from cion_jax.pipeline.settings import remember_config
from cion_jax.pipeline.stages import run_stages
from cion_jax.pipeline.validate import missing_data
from cion_jax.pipeline.workdir import Workdir
from cion_jax.runtime.commands import run


def main(argv: list[str]) -> None:
    del argv
    config, workdir = flags.FLAGS.config, Workdir(Path(flags.FLAGS.workdir), flags.FLAGS.config)
    if missing := missing_data(config):
        raise ValueError(missing)
    remember_config(config, workdir)
    run_stages(config, workdir)
    write_report(config, workdir)


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "A file of configs/.", lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder that everything is written to.", required=True)
    flags.mark_flag_as_required("config")
    run(main)
