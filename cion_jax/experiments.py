"""Reproduces a table or figure of the paper on your data.

    python -m cion_jax.experiments --which=table4 --workdir=W [--seeds=3]

Trains and scores every row (configs/ablation.py) with every seed, skips what is complete, and writes W/<which>.md,
.json and .png. Without --config it runs on the rendered street of configs/demo.py; see docs/experiments.md.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from cion_jax.configs import demo
from cion_jax.pipeline.experiments.catalogue import EXPERIMENTS
from cion_jax.pipeline.experiments.experiment import run_experiment
from cion_jax.runtime.commands import run


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    text = run_experiment(values.which, values.config, Path(values.workdir), seeds=values.seeds)
    print(text)
    print(f"In {values.workdir}: {values.which}.md, {values.which}.json, {values.which}.png")


if __name__ == "__main__":
    flags.DEFINE_enum("which", None, list(EXPERIMENTS), "Which table or figure of the paper.", required=True)
    flags.DEFINE_string("workdir", None, "Folder that everything is written to.", required=True)
    flags.DEFINE_integer("seeds", 3, "Runs of every row, each with a seed of its own.", lower_bound=1)
    config_flags.DEFINE_config_file("config", demo.__file__, "A file of configs/.", lock_config=True)
    run(main)
