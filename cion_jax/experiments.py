"""A table or figure of the paper on your data: python -m cion_jax.experiments --which=table4 --workdir=W [--seeds=3].

Trains and scores its rows (configs/ablation.py) with every seed as `cion_jax.main` does, what is complete left alone,
and writes W/<which>.md, .json and .png. Without --config on the street of configs/demo.py; see docs/experiments.md.
"""

from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from cion_jax.configs import demo
from cion_jax.pipeline.experiments.catalogue import EXPERIMENTS, Experiment
from cion_jax.pipeline.experiments.figures import draw
from cion_jax.pipeline.experiments.results import markdown, summarise
from cion_jax.pipeline.experiments.runs import execute_all, plan_runs
from cion_jax.runtime.commands import run
from cion_jax.runtime.config import Config
from cion_jax.runtime.files import atomic_path, write_json


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    text = run_experiment(values.which, values.config, Path(values.workdir), seeds=values.seeds)
    print(text)
    print(f"In {values.workdir}: {values.which}.md, {values.which}.json, {values.which}.png")


def run_experiment(which: str, config: Config, root: Path, *, seeds: int) -> str:
    """Runs the experiment with seeds `config.seed`, `config.seed + 1`, ...; writes its files and returns its table."""
    experiment = EXPERIMENTS[which]
    runs = plan_runs(experiment, config, root, range(config.seed, config.seed + seeds))
    execute_all(runs)
    measured = {row: [run.measured() for run in runs if run.row == row] for row in experiment.rows}
    summary = summarise(experiment, measured, _recipe(config))
    return _write(experiment, summary, root / which)


def _recipe(config: Config) -> dict[str, Any]:
    settings = config.pretrain
    data = "the street" if "street" in config.stages else str(config.data.samples)
    return {"data": data, "model": config.model, "epochs": settings.epochs, "batch size": settings.batch_size}


def _write(experiment: Experiment, summary: dict[str, Any], stem: Path) -> str:
    text = markdown(experiment, summary)
    draw(experiment, summary, stem.with_suffix(".png"))
    write_json(stem.with_suffix(".json"), summary)
    with atomic_path(stem.with_suffix(".md")) as temporary:
        temporary.write_text(text)
    return text


if __name__ == "__main__":
    flags.DEFINE_enum("which", None, list(EXPERIMENTS), "Which table or figure of the paper.", required=True)
    flags.DEFINE_string("workdir", None, "Folder that everything is written to.", required=True)
    flags.DEFINE_integer("seeds", 3, "Runs of every row, each with a seed of its own.", lower_bound=1)
    config_flags.DEFINE_config_file("config", demo.__file__, "A file of configs/.", lock_config=True)
    run(main)
