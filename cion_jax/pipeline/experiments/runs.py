"""The runs of an experiment: what they share is made once, then each is trained and scored in a folder of its own.

    ROOT/shared/                crops of videos or the street, extractor, features
    ROOT/shared/level<n>/       identities that correlation finds up to a level
    ROOT/runs/<row>/seed<n>/    a workdir of `cion_jax.main` that trains on them, and finetune-<method> in it
    ROOT/runs/scratch/seed<n>/  the same fine-tuning of a network that is not pre-trained

The seed of a run sets initialisation, batches, augmentation and, below 100 %, which identities are drawn. All runs
share the data.
"""

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cion_jax.configs.ablation import ROWS, ablate
from cion_jax.distillation.groupings import trained_on
from cion_jax.distillation.train import plan
from cion_jax.evaluation import read_market1501
from cion_jax.pipeline.experiments.catalogue import Experiment
from cion_jax.pipeline.experiments.finetuning import FineTuning
from cion_jax.pipeline.experiments.finetuning import recipe as finetuning_recipe
from cion_jax.pipeline.settings import remember_config
from cion_jax.pipeline.stages import STAGES, run_stages
from cion_jax.pipeline.validate import missing_data
from cion_jax.pipeline.workdir import Workdir
from cion_jax.runtime.config import Config
from cion_jax.runtime.files import read_json
from cion_jax.runtime.metrics import read_metrics
from cion_jax.runtime.progress import console
from cion_jax.samples import SampleTable, read_samples

_TRAINING = ("pretrain", "evaluate", "export")
_CORRELATION = ("extractor", "extract", "correlate")


class Shared(Workdir):
    """The workdir of what runs share; every level of correlation has its folder."""

    @property
    def correlation(self) -> Path:
        return self.root / f"level{self.config.correlate.levels}"


@dataclasses.dataclass(frozen=True)
class Run:
    """A row with one seed, and how much it trains on."""

    row: str
    config: Config
    workdir: Workdir
    identities: int
    images: int
    steps: int
    finetuning: FineTuning | None = None

    @property
    def complete(self) -> bool:
        stages = all(STAGES[name].marker(self.workdir).exists() for name in self.config.stages)
        return stages and (self.finetuning is None or all(map(self.finetuning.complete, self._fine_tuned)))

    @property
    def _fine_tuned(self) -> tuple[Path, Path]:
        """Folders of the fine-tuning of this run's network, and of one from scratch with the same seed."""
        assert self.finetuning is not None
        name = f"finetune-{self.finetuning.config.method}"
        scratch = self.workdir.root.parent.parent / "scratch" / self.workdir.root.name
        return self.workdir.root / name, scratch / name

    def execute(self) -> None:
        """Trains and scores, continuing where an earlier call was interrupted."""
        run_stages(self.config, self.workdir)
        jax.clear_caches()  # the next run's programs are others: the number of steps is part of them
        if self.finetuning is not None:
            (by,) = self.config.pretrain.group_by
            own, scratch = self._fine_tuned
            self.finetuning.run(own, self.workdir.teacher(by))
            self.finetuning.run(scratch, None)

    def measured(self) -> dict[str, Any]:
        """Sizes, seconds of training and, if the run was scored, the scores of its network."""
        (by,) = self.config.pretrain.group_by
        log = self.workdir.metrics(by)
        result = {
            "seed": self.config.seed,
            "identities": self.identities,
            "images": self.images,
            "steps": self.steps,
            "seconds": training_seconds(log, steps=self.steps, batch_size=self.config.pretrain.batch_size),
        }
        if "evaluate" not in self.config.stages:
            return result
        scores = read_json(self.workdir.scores)
        before = {"scores": scores[by], "untrained": scores["untrained"]}
        if self.finetuning is None:
            return result | before
        own, scratch = map(self.finetuning.scores, self._fine_tuned)
        return result | {"scores": own, "untrained": scratch, "before_finetuning": before}


def plan_runs(
    experiment: Experiment, config: Config, root: Path, seeds: Sequence[int], method: str | None = None
) -> list[Run]:
    """Makes what the runs share, and returns them seed by seed, seen to be possible.

    `config` is the recipe that rows change. Its stages say where crops and identities come from: without `correlate`,
    identities are the table's own. `method` is that of fine-tuning, if there is one. Raises ValueError before any work
    where data are missing, and before any training where a row has too few of them.
    """
    root = root.resolve()  # runs remember where their samples are
    recipes = {row: _recipe(experiment, config, row) for row in experiment.rows}
    shared = {row: _shared(recipe, root) for row, recipe in recipes.items()}
    remember_config(config, Workdir(root, config), begun=tuple(STAGES))
    for workdir in {(folder.config.stages, folder.correlation): folder for folder in shared.values()}.values():
        run_stages(workdir.config, workdir)
    runs, tables = [], {path: read_samples(path) for path in {folder.training_samples for folder in shared.values()}}
    finetuned = None if method is None else finetuning_recipe(config, method, next(iter(shared.values())))
    for seed, (row, recipe) in itertools.product(seeds, recipes.items()):
        run = _run(row, _own(recipe, shared[row], seed), root, tables[shared[row].training_samples])
        runs.append(run if finetuned is None else dataclasses.replace(run, finetuning=FineTuning(finetuned, seed)))
    if not experiment.timed:
        read_market1501(next(iter(shared.values())).benchmark)  # a wrong folder is reported now, not after training
    return runs


def _recipe(experiment: Experiment, config: Config, row: str) -> Config:
    """The config with which `cion_jax.main` would do all of the row in one folder."""
    recipe = copy.deepcopy(config)
    ablate(recipe, row)
    wanted = [name for name in config.stages if name not in _TRAINING]
    if recipe.correlate.levels < 3 and "correlate" not in wanted:
        raise ValueError(
            f"{row} needs identity correlation, which the config's stages {config.stages} leave out; give "
            "--config.stages=\"('extract','correlate','pretrain')\" and the extractor, or a street"
        )
    if "correlate" not in ROWS[row].stages:
        wanted = [name for name in wanted if name not in _CORRELATION]
    recipe.stages = (*wanted, "pretrain", *(() if experiment.timed else ("evaluate",)))
    if missing := missing_data(recipe):
        raise ValueError(missing)
    return recipe


def _shared(recipe: Config, root: Path) -> Shared:
    config = copy.deepcopy(recipe)
    config.stages = tuple(name for name in recipe.stages if name not in _TRAINING)
    return Shared(root / "shared", config)


def _own(recipe: Config, shared: Shared, seed: int) -> Config:
    """The rest of the recipe: a config for what is shared as the data."""
    config = copy.deepcopy(recipe)
    config.seed = seed
    config.stages = tuple(name for name in recipe.stages if name in _TRAINING)
    config.data.samples, config.data.images = str(shared.training_samples), str(shared.images)
    if "street" in recipe.stages:
        config.evaluate.root = str(shared.benchmark)
    return config


def _run(row: str, config: Config, root: Path, table: SampleTable) -> Run:
    """Rows of different experiments that are the same training have one folder, under the first one's name."""
    first = next(name for name in ROWS if ROWS[name] == ROWS[row])
    workdir = Workdir(root / "runs" / first / f"seed{config.seed}", config)
    try:
        identities = trained_on(config, table, *config.pretrain.group_by)["identity"]
        steps = plan(config, identities, devices=jax.device_count()).total_steps
    except ValueError as error:
        raise ValueError(f"{row}, seed {config.seed}: {error}") from error
    used = identities[identities >= 0]
    remember_config(config, workdir)
    return Run(row, config, workdir, len(np.unique(used)), len(used), steps)


def execute_all(runs: Sequence[Run]) -> None:
    """Executes what is not complete, and says how far it is."""
    for number, run in enumerate(runs, 1):
        name = f"run {number} of {len(runs)}: {run.row}, seed {run.config.seed}"
        if run.complete:
            console.print(f"[green]✓[/] {name} is complete", highlight=False)
            continue
        console.print(f"[bold]{name}[/], {run.identities:,} identities, {run.images:,} images", highlight=False)
        run.execute()


def training_seconds(log: Path, *, steps: int, batch_size: int) -> float:
    """Seconds that `steps` steps took by a run's `metrics.jsonl`, however often it was interrupted between them.

    Every line has the images per second since the line before, so that compilation, waiting for input and checkpoints
    count, and steps that were done again after a kill count once. Raises ValueError for a log that ends early.
    """
    lines = read_metrics(log)
    done = [0, *(int(line["step"]) + 1 for line in lines)]
    if done[-1] != steps:
        raise ValueError(f"{log} has {done[-1]} of {steps} steps; remove {log.parent} to train this run again")
    since = (after - before for before, after in itertools.pairwise(done))
    return sum(count * batch_size / line["images_per_second"] for count, line in zip(since, lines))
