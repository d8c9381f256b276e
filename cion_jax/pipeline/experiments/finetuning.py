"""Fine-tuning of the networks of an experiment, since the paper's scores are of fine-tuned networks."""

import copy
import dataclasses
from pathlib import Path

import jax

from cion_jax.configs import demo, finetune, finetune_mgn
from cion_jax.finetuning.data import read_benchmark, read_training, training_data
from cion_jax.finetuning.methods import create_method
from cion_jax.finetuning.scores import LOGGED
from cion_jax.finetuning.train import fine_tune
from cion_jax.pipeline.workdir import Workdir
from cion_jax.runtime.config import Config, flat
from cion_jax.runtime.files import read_json, write_json

_CONFIGS = {"supervised": finetune.get_config, "mgn": finetune_mgn.get_config}
METHODS = tuple(_CONFIGS)
_SCORES = "scores.json"


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """Fine-tunes one network in a folder, and skips it when that is done.

    Attributes:
        config: a config of configs/finetune, with data but without weights.
        seed: of this run.
    """

    config: Config
    seed: int

    def run(self, folder: Path, weights: Path | None) -> None:
        """Fine-tunes from `weights`, or from scratch, and writes the scores of the last epoch."""
        config = copy.deepcopy(self.config)
        config.seed, config.from_scratch = self.seed, weights is None
        config.weights = None if weights is None else str(weights)
        _remember(config, folder)
        if self.complete(folder):
            return
        reports = fine_tune(config, read_training(config), folder, benchmark=read_benchmark(config))
        write_json(folder / _SCORES, {name: reports["last"][name] for name in LOGGED})
        jax.clear_caches()

    def complete(self, folder: Path) -> bool:
        return (folder / _SCORES).exists()

    def scores(self, folder: Path) -> dict[str, float]:
        return read_json(folder / _SCORES)


def _remember(config: Config, folder: Path) -> None:
    """Keeps the config beside the results, and refuses to continue those of another one."""
    path, now = folder / "config.json", {name: str(value) for name, value in flat(config.to_dict()).items()}
    before = read_json(path) if path.exists() else now
    if changed := [name for name in now if now[name] != before.get(name)]:
        shown = ", ".join(f"{name}: {before.get(name)} -> {now[name]}" for name in changed[:5])
        raise ValueError(f"{folder} was made with another config ({shown}); give another --workdir")
    write_json(path, now)


def recipe(config: Config, method: str, shared: Workdir) -> Config:
    """The fine-tuning of an experiment's networks, seen to be possible with its data.

    On a street it is a short one, on a share of the labelled people. Otherwise it is the paper's for Market-1501, whose
    training images are beside the benchmark.

    Args:
        config: the experiment's.
        method: one of `METHODS`.
        shared: holds the street, if there is one.
    """
    if "street" in config.stages:
        recipe: Config = demo.finetuning(method)
        labelled = shared.street / "labelled"
        recipe.data.samples, recipe.data.images = str(labelled / "labelled.parquet"), str(labelled)
        recipe.evaluate.root = str(shared.benchmark)
    else:
        recipe = _CONFIGS[method](f"market1501/{config.model}")
        recipe.data.root = config.evaluate.root
    data = training_data(read_training(recipe), needs_identities=True)
    create_method(recipe).plan(data, jax.device_count())
    return recipe
