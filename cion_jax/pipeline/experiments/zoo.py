"""Tables 1, 2, 3 and 6 of the paper: pre-trained models, fine-tuned on Market-1501 and MSMT17.

    ROOT/<model>/<setting>-<data set>/seed<n>/    a workdir of `cion_jax.finetune`, shared by all tables

Settings: "supervised" (TransReID's recipe), "mgn", "usl", and "uda", which starts from the model that was fine-tuned
with labels on the other data set.
"""

import fnmatch
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from cion_jax.configs import finetune, finetune_clusters, finetune_mgn
from cion_jax.finetuning.data import read_benchmark, read_training, training_data
from cion_jax.finetuning.methods import create_method
from cion_jax.finetuning.scores import LAST
from cion_jax.models.registry import reidzoo
from cion_jax.pipeline.experiments.finetuning import FineTuning
from cion_jax.pipeline.experiments.paper import MARKET, MSMT, UNSUPERVISED, reported
from cion_jax.pipeline.experiments.results import SCORES, cells_of, in_paper, line
from cion_jax.pipeline.experiments.statistics import mean
from cion_jax.runtime.config import Config
from cion_jax.runtime.files import atomic_path, write_json
from cion_jax.runtime.progress import console

_CONFIGS = {
    "supervised": finetune.get_config,
    "mgn": finetune_mgn.get_config,
    "usl": finetune_clusters.get_config,
    "uda": finetune_clusters.get_config,
}
_RESNETS = ("resnet50", "resnet101", "resnet152", "resnet50_ibn", "resnet101_ibn", "resnet152_ibn")


class ZooTable(NamedTuple):
    """A title, and the models and settings of the rows; every row has the data sets as columns."""

    title: str
    rows: tuple[tuple[str, str], ...]


def _rows(models: Iterable[str], *settings: str) -> tuple[tuple[str, str], ...]:
    return tuple((model, setting) for model in models for setting in settings)


TABLES = {
    "table1": ZooTable("Table 1: supervised", (("vit_base", "supervised"), ("resnet50_ibn", "mgn"))),
    "table2": ZooTable("Table 2: unsupervised", _rows(("resnet50", "resnet50_ibn", "vit_small"), "uda", "usl")),
    "table3": ZooTable("Table 3: all models, supervised", _rows(reidzoo(), "supervised") + _rows(_RESNETS, "mgn")),
    "table6": ZooTable("Table 6: unsupervised", _rows(UNSUPERVISED, "uda", "usl")),
}


class Cell(NamedTuple):
    """A pre-trained model, fine-tuned by a setting on a data set and scored there.

    Attributes:
        model, setting, dataset: names.
        recipe: the paper's config for them, with the data but without weights.
        folder: holds a run for each seed.
        start: file of the pre-trained weights, or for UDA the cell that is fine-tuned with labels first.
    """

    model: str
    setting: str
    dataset: str
    recipe: Config
    folder: Path
    start: "Path | Cell"

    def run(self, seed: int) -> dict[str, float]:
        """Fine-tunes with this seed, unless that is done, and returns the scores."""
        start = self.start
        if isinstance(start, Cell):
            start.run(seed)
            start = start.folder / f"seed{seed}" / LAST
        folder, tuning = self.folder / f"seed{seed}", FineTuning(self.recipe, seed)
        console.print(f"[bold]{self.model}, {self.setting}, {self.dataset}, seed {seed}[/]", highlight=False)
        tuning.run(folder, start)
        return tuning.scores(folder)


def run_zoo_table(
    which: str, root: Path, *, weights: Path, datasets: Mapping[str, Path], models: str, seeds: Sequence[int]
) -> str:
    """Fine-tunes and scores the rows of a table, skips what is complete, and writes `<which>.md` and `.json`.

    Args:
        which: one of `TABLES`.
        root: folder of all runs.
        weights: folder of pre-trained weights, `<ReIDZoo's file name>.pth` or `<model>.pth`.
        datasets: folder of each data set, by name; UDA needs both.
        models: shell pattern of the models to run; those without a file of weights are left out.
        seeds: one run of each row for every seed.

    Raises:
        ValueError: no row can be run, or one lacks data, before anything is trained.
    """
    table, files = TABLES[which], _weight_files(weights)
    rows = [row for row in table.rows if row[0] in files and fnmatch.fnmatchcase(row[0], models)]
    if not rows:
        wanted = ", ".join(dict.fromkeys(model for model, _ in table.rows))
        raise ValueError(f"{weights} has no weights (.pth) of a model of this table that matches {models!r}: {wanted}")
    cells = [[_cell(*row, dataset, root, files[row[0]], datasets) for dataset in datasets] for row in rows]
    for cell in itertools.chain(*cells):
        _check(cell)
    entries = [_entry(cell, [cell.run(seed) for seed in seeds]) for cell in itertools.chain(*cells)]
    text = _markdown(table.title, entries, list(datasets), seeds)
    write_json(root / f"{which}.json", {"title": table.title, "seeds": list(seeds), "scores": entries})
    with atomic_path(root / f"{which}.md") as temporary:
        temporary.write_text(text)
    return text


def _weight_files(folder: Path) -> dict[str, Path]:
    """The files of a folder by the model that they are named after."""
    candidates = [(name, folder / f"{stem}.pth") for name, info in reidzoo().items() for stem in (name, info.file)]
    return {name: path for name, path in candidates if path.exists()}


def _cell(model: str, setting: str, dataset: str, root: Path, weights: Path, datasets: Mapping[str, Path]) -> Cell:
    recipe: Config = _CONFIGS[setting](f"{dataset}/{model}")
    recipe.data.root = str(datasets[dataset])
    start: Path | Cell = weights
    if setting == "uda":
        source = MSMT if dataset == MARKET else MARKET
        if source not in datasets:
            raise ValueError(
                f"domain adaptation to {dataset} starts from {source}; give its folder too: --data={source}=DIR"
            )
        start = _cell(model, "supervised", source, root, weights, datasets)
    return Cell(model, setting, dataset, recipe, root / model / f"{setting}-{dataset}", start)


def _check(cell: Cell) -> None:
    """Raises ValueError for data that the cell's recipe cannot be trained or scored on."""
    if isinstance(cell.start, Cell):
        _check(cell.start)
    method = create_method(cell.recipe)
    data = training_data(read_training(cell.recipe), needs_identities=not method.relabels)
    method.plan(data, jax.device_count())
    read_benchmark(cell.recipe)


def _entry(cell: Cell, scores: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    estimates = {name: mean([run[name] for run in scores])._asdict() for name in SCORES}
    paper = reported(cell.model, cell.setting, cell.dataset)
    return {"model": cell.model, "setting": cell.setting, "dataset": cell.dataset, "paper": paper} | estimates


def _markdown(title: str, entries: Sequence[Mapping[str, Any]], datasets: Sequence[str], seeds: Sequence[int]) -> str:
    heads = [f"{dataset}, {head}" for dataset in datasets for head in ("mAP", "Rank-1", "paper")]
    lines = [f"# {title}", "", line(["model", "fine-tuning", *heads]), line(["---"] * (2 + len(heads)))]
    for (model, setting), row in itertools.groupby(entries, key=lambda entry: (entry["model"], entry["setting"])):
        cells = [text for entry in row for text in (*cells_of(entry, SCORES, percent=True), in_paper(entry["paper"]))]
        lines.append(line([model, setting, *cells]))
    given = ", ".join(map(str, seeds))
    return "\n".join(
        [*lines, "", f"Seeds {given}; ± is half of the 95 % confidence interval. Paper: mAP / Rank-1.", ""]
    )
