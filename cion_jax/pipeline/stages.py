"""The stages of `cion_jax.main`: the work of each, the file that marks it complete, and the settings it depends on."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from flax import nnx

from cion_jax.conversion import load_weights, load_with_provenance, write_weights
from cion_jax.conversion.card import card_path, training_of
from cion_jax.conversion.imagenet import initialise
from cion_jax.correlation import correlate_to
from cion_jax.correlation.results import open_features, read_correlatable
from cion_jax.distillation.groupings import grouped, pretrain_groupings, trainable
from cion_jax.evaluation import read_market1501
from cion_jax.evaluation.run import evaluate
from cion_jax.features.adaptation import adapt_to
from cion_jax.features.store import aligned_samples, extract
from cion_jax.finetuning.extractor import create_extractor, train_extractor
from cion_jax.models import create_model
from cion_jax.models.neck import BNNeck
from cion_jax.pipeline.rounds import round_run, run_rounds
from cion_jax.pipeline.workdir import Workdir
from cion_jax.reporting.calibration import calibrate_to
from cion_jax.runtime.config import Config
from cion_jax.runtime.files import read_json, write_json
from cion_jax.runtime.progress import console, progress
from cion_jax.samples import check_images, read_samples
from cion_jax.samples.ingest.decoding import find_videos
from cion_jax.samples.ingest.job import gather, ingest_videos, left_out
from cion_jax.samples.ingest.settings import IngestSettings
from cion_jax.samples.ingest.video import CropSettings
from cion_jax.street import build_street, street_config


class Stage(NamedTuple):
    """A stage of the pipeline.

    Attributes:
        run: does the work.
        marker: the file or folder that exists once the stage is complete.
        settings: names of the settings, or groups of them, that its results depend on.
    """

    run: Callable[[Config, Workdir], None]
    marker: Callable[[Workdir], Path]
    settings: tuple[str, ...]


def run_stages(config: Config, workdir: Workdir) -> None:
    """Runs the config's incomplete stages in order and records the time spent in each."""
    for name, stage in STAGES.items():
        if name not in config.stages:
            continue
        if stage.marker(workdir).exists():
            console.print(f"[green]✓[/] {name} is complete", highlight=False)
            continue
        started = time.perf_counter()
        try:
            stage.run(config, workdir)
        finally:  # the time of an interrupted attempt counts too
            taken = read_json(workdir.seconds) if workdir.seconds.exists() else {}
            taken[name] = round(taken.get(name, 0) + time.perf_counter() - started, 1)
            write_json(workdir.seconds, taken)
        console.print(f"[green]✓[/] {name} took {taken[name]:.0f} s", highlight=False)


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
    """The settings of `config.ingest` that hold for every video."""
    chosen = {key: value for key, value in config.to_dict().items() if key not in ("videos", "tracks", "crops")}
    tracks = Path(config.tracks) if config.tracks else None
    return IngestSettings(**chosen, tracks=tracks, crops=CropSettings(**config.crops.to_dict()))


def _street(config: Config, workdir: Workdir) -> None:
    build_street(street_config(**config.street), workdir.street)


def _extractor(config: Config, workdir: Workdir) -> None:
    table = trainable(grouped(read_samples(workdir.labelled), config.extractor.group_by))
    train_extractor(config, table, workdir.labelled_images, workdir.extractor)


def _rounds(config: Config, workdir: Workdir) -> None:
    run_rounds(config, workdir, run_stages)


def _load_extractor(config: Config, workdir: Workdir) -> tuple[BNNeck | nnx.Module, dict[str, str]]:
    """The extractor, and the provenance of its weights."""
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
        precision=config.extractor.precision,
    )


def _adapt(config: Config, workdir: Workdir) -> None:
    del config
    table = read_correlatable(aligned_samples(workdir.features))
    about = read_json(workdir.features.with_suffix(".json"))
    adapt_to(workdir.adapted, open_features(workdir.features, len(table)), table, about)


def _calibrate(config: Config, workdir: Workdir) -> None:
    settings = config.correlate
    calibrate_to(
        workdir.calibration.parent,
        aligned_samples(workdir.correlated),
        workdir.correlated,
        false_links=config.calibrate.false_links,
        half_width=settings.half_width,
        given={name: settings[name] for name in ("sigma_cst", "sigma_drm")},
    )


def _correlate(config: Config, workdir: Workdir) -> None:
    settings = config.correlate.to_dict()
    if "calibrate" in config.stages:
        calibrated = read_json(workdir.calibration)
        settings |= {name: calibrated[name]["proposed"] for name in ("sigma_cst", "sigma_drm")}
    correlate_to(workdir.correlation, aligned_samples(workdir.correlated), workdir.correlated, **settings)


def _pretrain(config: Config, workdir: Workdir) -> None:
    table = read_samples(workdir.training_samples)
    check_images(table, workdir.images)
    pretrain_groupings(config, table, workdir.images, workdir.runs)


def _evaluate(config: Config, workdir: Workdir) -> None:
    """Scores the untrained network, every pre-trained network, and the extractor if this run trained it."""
    benchmark = read_market1501(workdir.benchmark.resolve())  # the evidence keeps absolute paths, valid from any folder
    networks = {"untrained": (untrained(config), config.evaluate.size)}
    for by in config.pretrain.group_by:
        model = create_model(config.model)
        load_weights(model, workdir.teacher(by))
        networks[by] = (model, config.evaluate.size)
    if "extractor" in config.stages:
        networks["extractor"] = (_load_extractor(config, workdir)[0], config.extractor.size)
    if "rounds" in config.stages:
        last = round_run(config, workdir, read_json(workdir.rounds_report)["good"])
        networks["rounds"] = (_load_extractor(*last)[0], config.extractor.size)
    scores, batch_size = {}, config.evaluate.batch_size
    for name, (model, size) in networks.items():
        kept = workdir.evidence(name)
        scores[name] = evaluate(model, benchmark, size=tuple(size), batch_size=batch_size, evidence=kept)
    write_json(workdir.scores, scores)


def _export(config: Config, workdir: Workdir) -> None:
    """Writes the teacher of the last grouping as a ReIDZoo file, with the card that its run wrote."""
    teacher = workdir.teacher(config.pretrain.group_by[-1])
    model = create_model(config.model)
    load_weights(model, teacher)
    write_weights(model, workdir.checkpoint, about=training_of(teacher))


STAGES = {
    "ingest": Stage(_ingest, lambda w: w.ingest_report, ("ingest",)),
    "street": Stage(_street, lambda w: w.street, ("street",)),
    "extractor": Stage(_extractor, lambda w: card_path(w.extractor), ("extractor", "seed")),
    "rounds": Stage(
        _rounds,
        lambda w: w.rounds_report,
        ("rounds", "extractor", "data", "calibrate", "correlate", "pretrain", "model", "seed"),
    ),
    "extract": Stage(_extract, lambda w: w.features.with_suffix(".json"), ("extractor", "data")),
    "adapt": Stage(_adapt, lambda w: w.adapted.with_suffix(".json"), ()),
    "calibrate": Stage(_calibrate, lambda w: w.calibration, ("calibrate", "correlate")),
    "correlate": Stage(_correlate, lambda w: w.correlation_report, ("correlate",)),
    "pretrain": Stage(
        _pretrain,
        lambda w: card_path(w.teacher(w.config.pretrain.group_by[-1])),
        ("pretrain", "model", "seed", "data"),
    ),
    "evaluate": Stage(_evaluate, lambda w: w.scores, ("evaluate", "model")),
    "export": Stage(_export, lambda w: card_path(w.checkpoint), ("model",)),
}
