"""An experiment from its config to its table, plot and JSON file."""

from pathlib import Path
from typing import Any

from cion_jax.pipeline.experiments.catalogue import EXPERIMENTS, Experiment
from cion_jax.pipeline.experiments.figures import draw
from cion_jax.pipeline.experiments.results import markdown, summarise
from cion_jax.pipeline.experiments.runs import execute_all, plan_runs
from cion_jax.runtime.config import Config
from cion_jax.runtime.files import atomic_path, write_json


def run_experiment(which: str, config: Config, root: Path, *, seeds: int, finetune: str | None = None) -> str:
    """Runs the experiment with seeds `config.seed`, `config.seed + 1`, ...; writes its files and returns its table.

    With `finetune`, a method of fine-tuning, scores are of the networks after it, and the files are named by it too.
    """
    experiment = EXPERIMENTS[which]
    if experiment.timed and finetune:
        raise ValueError(f"{which} compares times of pre-training; leave --finetune out")
    runs = plan_runs(experiment, config, root, range(config.seed, config.seed + seeds), finetune)
    execute_all(runs)
    measured = {row: [run.measured() for run in runs if run.row == row] for row in experiment.rows}
    summary = summarise(experiment, measured, _recipe(config), finetune)
    if finetune == "mgn" and "street" not in config.stages:
        summary["paper"] = dict(experiment.paper)
    return _write(experiment, summary, root / (f"{which}-{finetune}" if finetune else which))


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
