"""The stages of `cion_jax.main`: what each reads and writes, and when it is complete."""

import ast
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx
from ml_collections import ConfigDict

from cion_jax.conversion import load_weights, load_with_provenance, write_weights
from cion_jax.conversion.card import card_path, training_of
from cion_jax.conversion.imagenet import initialise
from cion_jax.correlation import correlate_to
from cion_jax.distillation.groupings import pretrain_groupings
from cion_jax.evaluate import evaluate
from cion_jax.evaluation import read_market1501
from cion_jax.extract import aligned_samples, extract
from cion_jax.extractor import create_extractor, train_extractor
from cion_jax.models import create_model, list_models
from cion_jax.models.neck import BNNeck
from cion_jax.runtime.config import Config, flat
from cion_jax.runtime.files import read_json, write_json
from cion_jax.runtime.progress import console, progress
from cion_jax.samples import check_images, read_samples
from cion_jax.samples.ingest.decoding import find_videos
from cion_jax.samples.ingest.job import gather, ingest_videos, left_out
from cion_jax.samples.ingest.settings import IngestSettings
from cion_jax.samples.ingest.video import CropSettings
from cion_jax.street import build_street, street_config


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Where everything of a run lies. Inputs are the config's, or the street's where that is built."""

    root: Path
    config: Config

    @property
    def street(self) -> Path:
        return self.root / "street"

    @property
    def ingested(self) -> Path:
        return self.root / "ingest"

    @property
    def samples(self) -> Path:
        if "ingest" in self.config.stages:
            return self.ingested / "samples.parquet"
        return self._input(self.config.data.samples, "crawl/crawl.parquet")

    @property
    def images(self) -> Path:
        if "ingest" in self.config.stages:
            return self.ingested / "crops"
        return self._input(self.config.data.images, "crawl")

    @property
    def benchmark(self) -> Path:
        return self._input(self.config.evaluate.root, "benchmark")

    @property
    def extractor(self) -> Path:
        trained = "extractor" in self.config.stages
        return self.root / "extractor.pth" if trained else Path(self.config.extractor.weights)

    @property
    def features(self) -> Path:
        return self.root / "features.npy"

    @property
    def correlation(self) -> Path:
        return self.root / "correlation"

    @property
    def training_samples(self) -> Path:
        correlated = "correlate" in self.config.stages
        return self.correlation / "identities.parquet" if correlated else self.samples

    @property
    def runs(self) -> Path:
        return self.root / "pretrain"

    @property
    def seconds(self) -> Path:
        """What every stage has taken so far."""
        return self.root / "seconds.json"

    @property
    def scores(self) -> Path:
        return self.root / "evaluation.json"

    def evidence(self, network: str) -> Path:
        """What the report shows of a network's retrieval."""
        return self.root / "evaluation" / f"{network}.npz"

    @property
    def checkpoint(self) -> Path:
        return self.root / f"{self.config.model}.pth"

    def _input(self, given: str | None, in_street: str) -> Path:
        return Path(given) if given else self.street / in_street


class Stage(NamedTuple):
    """A step of the pipeline.

    `marker` is the file (or folder) that appears when the stage is complete, `settings` are those of the config that
    its results depend on.
    """

    run: Callable[[Config, Workdir], None]
    marker: Callable[[Workdir], Path]
    settings: tuple[str, ...]


def run_stages(config: Config, workdir: Workdir) -> None:
    """Runs those of the config's stages that are not complete, in their order, and keeps what they took."""
    for name, stage in STAGES.items():
        if name not in config.stages:
            continue
        if stage.marker(workdir).exists():
            console.print(f"[green]✓[/] {name} is complete", highlight=False)
            continue
        started = time.perf_counter()
        try:
            stage.run(config, workdir)
        finally:  # what was interrupted took its time too
            taken = read_json(workdir.seconds) if workdir.seconds.exists() else {}
            taken[name] = round(taken.get(name, 0) + time.perf_counter() - started, 1)
            write_json(workdir.seconds, taken)
        console.print(f"[green]✓[/] {name} took {taken[name]:.0f} s", highlight=False)


def missing_data(config: Config) -> str | None:
    """Why the config can't run as it is, before any work is done; None if it can.

    Raises ValueError for an unknown model and a benchmark that is not one.
    """
    stages = config.stages
    if unknown := [name for name in stages if name not in STAGES]:
        return f"unknown stages {unknown}; choose from {', '.join(STAGES)}"
    for name in (config.model, config.extractor.model):
        if name not in list_models():
            create_model(name)  # raises, naming the closest models
    needed = {}
    if "ingest" in stages:
        needed["ingest.videos"] = config.ingest.videos
    if "street" not in stages:
        if "ingest" not in stages and {"extract", "correlate", "pretrain"} & set(stages):
            needed |= {"data.samples": config.data.samples, "data.images": config.data.images}
        if "evaluate" in stages:
            needed["evaluate.root"] = config.evaluate.root
        if "extractor" in stages:
            return "the extractor stage trains on the street; train one on your own labels with cion_jax.extractor"
    if "extract" in stages and "extractor" not in stages:
        needed["extractor.weights"] = config.extractor.weights
    absent = [name for name, value in needed.items() if not value or not Path(value).exists()]
    if not absent:
        if "evaluate.root" in needed:
            read_market1501(config.evaluate.root)  # a wrong folder is told now, not after training
        return None
    settings = "\n".join(
        f"  --config.{name}=...  ({f'{needed[name]!r} does not exist' if needed[name] else 'not given'})"
        for name in absent
    )
    return (
        f"this config needs data that are not there. Give\n{settings}\n"
        "or see the whole pipeline run on rendered people, with no data at all:\n"
        "  python -m cion_jax.main --config=configs/demo.py --workdir=runs/demo"
    )


# Settings, or the groups they are in, that change how a run goes but not what comes out.
_NO_RESULT = (
    "stages",
    "extractor.batch_size",
    "evaluate.batch_size",
    "pretrain.loader_threads",
    "pretrain.log_every",
    "pretrain.checkpoint",
    "pretrain.allow_changed_data",
)


def remember_config(config: Config, workdir: Workdir, *, begun: Sequence[str] | None = None) -> None:
    """Keeps the config beside the results, and refuses to mix the results of two configs in one folder.

    Settings may change as long as no stage that depends on them has begun; `begun` are all of these, and by default
    those that have left something in the folder.
    """
    path = workdir.root / "config.json"
    settings = flat(config.to_dict()).items()
    now = {name: _text(value) for name, value in settings if not name.startswith(_NO_RESULT)}
    if path.exists():
        before = read_json(path)
        used = {group for name in (_begun(workdir.root) if begun is None else begun) for group in STAGES[name].settings}
        changed = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
        if fixed := [name for name in changed if name.partition(".")[0] in used]:
            changes = ", ".join(f"{n}: {before.get(n)} -> {now.get(n)}" for n in fixed[:5])
            raise ValueError(f"{workdir.root} was made with another config ({changes}); give another --workdir")
    write_json(path, now)


def _begun(root: Path) -> list[str]:
    """Stages whose results other settings would not fit; a run that is not done says itself what may change."""
    config = remembered(root)
    trained = any(Workdir(root, config).runs.glob("*/teacher.pth"))
    return [*config.stages, *(["pretrain"] if trained else [])]


def remembered(root: Path) -> Config:
    """The config that `remember_config` kept in `root`; its stages are those whose results are there."""
    settings: dict[str, Any] = {}
    for name, text in read_json(root / "config.json").items():
        *groups, setting = name.split(".")
        group = settings
        for part in groups:
            group = group.setdefault(part, {})
        group[setting] = _value(text)
    config = ConfigDict(settings)
    config.stages = tuple(STAGES)  # a stage's marker may depend on which there are
    workdir = Workdir(root, config)
    config.stages = tuple(name for name, stage in STAGES.items() if stage.marker(workdir).exists())
    return config


def _text(value: Any) -> str:
    """What `_value` makes this setting of again."""
    return str(value) if _value(str(value)) == value else repr(value)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):  # a string
        return text


def untrained(config: Config) -> nnx.Module:
    """The backbone that pre-training starts from."""
    model = create_model(config.model, rngs=nnx.Rngs(config.seed))
    if config.pretrain.init is not None:
        initialise(model, config.pretrain.init)
    return model


def _ingest(config: Config, workdir: Workdir) -> None:
    settings = ingest_settings(config.ingest)
    settings.check()
    videos = find_videos(config.ingest.videos)
    broken = ingest_videos(videos, workdir.ingested, settings, workers=os.cpu_count() or 1, progress=progress)
    if broken:
        console.print(left_out(broken, len(videos)), markup=False, highlight=False)
    gather(list(videos), workdir.ingested, settings, broken, progress=progress)


def ingest_settings(config: Config) -> IngestSettings:
    """What `config.ingest` says of all videos."""
    chosen = {key: value for key, value in config.to_dict().items() if key not in ("videos", "tracks", "crops")}
    tracks = Path(config.tracks) if config.tracks else None
    return IngestSettings(**chosen, tracks=tracks, crops=CropSettings(**config.crops.to_dict()))


def _street(config: Config, workdir: Workdir) -> None:
    build_street(street_config(**config.street), workdir.street)


def _extractor(config: Config, workdir: Workdir) -> None:
    labelled = workdir.street / "labelled"
    train_extractor(config, read_samples(labelled / "labelled.parquet"), labelled, workdir.extractor)


def _load_extractor(config: Config, workdir: Workdir) -> tuple[BNNeck | nnx.Module, dict[str, str]]:
    """The extractor, and which it is."""
    name = config.extractor.model
    model = create_extractor(name) if "extractor" in config.stages else create_model(name)
    return model, {"model": name, **load_with_provenance(model, workdir.extractor)}


def _extract(config: Config, workdir: Workdir) -> None:
    model, about = _load_extractor(config, workdir)
    extract(
        model,
        read_samples(workdir.samples),
        workdir.images,
        workdir.features,
        about=about,
        size=tuple(config.extractor.size),
        batch_size=config.extractor.batch_size,
    )


def _correlate(config: Config, workdir: Workdir) -> None:
    settings = config.correlate.to_dict()
    correlate_to(workdir.correlation, aligned_samples(workdir.features), workdir.features, **settings)


def _pretrain(config: Config, workdir: Workdir) -> None:
    table = read_samples(workdir.training_samples)
    check_images(table, workdir.images)
    pretrain_groupings(config, table, workdir.images, workdir.runs)


def _evaluate(config: Config, workdir: Workdir) -> None:
    """Scores the untrained network, every pre-trained one, and the extractor if it was trained here."""
    benchmark = read_market1501(workdir.benchmark.resolve())  # what is kept is found from any folder
    networks = {"untrained": (untrained(config), config.evaluate.size)}
    for by in config.pretrain.group_by:
        model = create_model(config.model)
        load_weights(model, workdir.runs / by / "teacher.pth")
        networks[by] = (model, config.evaluate.size)
    if "extractor" in config.stages:
        networks["extractor"] = (_load_extractor(config, workdir)[0], config.extractor.size)
    scores, batch_size = {}, config.evaluate.batch_size
    for name, (model, size) in networks.items():
        kept = workdir.evidence(name)
        scores[name] = evaluate(model, benchmark, size=tuple(size), batch_size=batch_size, evidence=kept)
    write_json(workdir.scores, scores)


def _export(config: Config, workdir: Workdir) -> None:
    """The teacher of the last grouping, as ReIDZoo has it; its card tells the same as in the run."""
    teacher = workdir.runs / config.pretrain.group_by[-1] / "teacher.pth"
    model = create_model(config.model)
    load_weights(model, teacher)
    write_weights(model, workdir.checkpoint, about=training_of(teacher))


STAGES = {
    "ingest": Stage(_ingest, lambda w: w.ingested / "report.json", ("ingest",)),
    "street": Stage(_street, lambda w: w.street, ("street",)),
    "extractor": Stage(_extractor, lambda w: card_path(w.extractor), ("extractor", "seed")),
    "extract": Stage(_extract, lambda w: w.features.with_suffix(".json"), ("extractor", "data")),
    "correlate": Stage(_correlate, lambda w: w.correlation / "report.json", ("correlate",)),
    "pretrain": Stage(
        _pretrain,
        lambda w: card_path(w.runs / w.config.pretrain.group_by[-1] / "teacher.pth"),
        ("pretrain", "model", "seed", "data"),
    ),
    "evaluate": Stage(_evaluate, lambda w: w.scores, ("evaluate", "model")),
    "export": Stage(_export, lambda w: card_path(w.checkpoint), ("model",)),
}
