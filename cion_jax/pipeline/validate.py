"""Checks of a config before any stage runs."""

from pathlib import Path

from cion_jax.correlation import checks
from cion_jax.correlation.rules import NEIGHBORS, check_rule
from cion_jax.distillation.groupings import GROUPINGS
from cion_jax.evaluation import read_market1501
from cion_jax.features.extraction import chosen_precision
from cion_jax.models import create_model, list_models
from cion_jax.pipeline.rounds import STARTS, TRAINED_BY, check_frames
from cion_jax.pipeline.stages import STAGES
from cion_jax.runtime.config import Config
from cion_jax.samples import read_samples


def missing_data(config: Config) -> str | None:
    """The reason why the config cannot run, found before any work is done; None if it can run.

    Raises:
        ValueError: a setting that no run can have, such as an unknown model, precision or rule of linking; a table
            without the frames that a stage needs; or an evaluation root without a benchmark.
    """
    stages = config.stages
    if unknown := [name for name in stages if name not in STAGES]:
        return f"unknown stages {unknown}; choose from {', '.join(STAGES)}"
    for name in (config.model, config.extractor.model):
        if name not in list_models():
            create_model(name)  # raises, naming the closest models
    if not config.pretrain.group_by:
        raise ValueError(f"pretrain.group_by=(): expected one or more of {', '.join(GROUPINGS)}, such as ('identity',)")
    chosen_precision(config.extractor.precision)
    if {"correlate", "rounds"} & {*stages}:
        checks.reach(config.correlate.half_width)
        check_rule(config.correlate.rule, NEIGHBORS, frames_known=True)
    if "rounds" in stages:
        _check_rounds(config.rounds)
    needed = {}
    if "ingest" in stages:
        needed["ingest.videos"] = config.ingest.videos
    if "street" not in stages:
        if "ingest" not in stages and {"rounds", "extract", "correlate", "pretrain"} & set(stages):
            needed |= {"data.samples": config.data.samples, "data.images": config.data.images}
        if "evaluate" in stages:
            needed["evaluate.root"] = config.evaluate.root
        if "extractor" in stages and not config.extractor.labelled:
            return "the extractor stage trains on the street; train one on your own labels with cion_jax.extractor"
    if "extract" in stages and "extractor" not in stages:
        needed["extractor.weights"] = config.extractor.weights
    absent = [name for name, value in needed.items() if not value or not Path(value).exists()]
    if not absent:
        if "evaluate.root" in needed:
            read_market1501(config.evaluate.root)  # a wrong folder is reported now, not after training
        if "data.samples" in needed:
            _check_frames(config)
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


def _check_frames(config: Config) -> None:
    """Raises `ValueError` where a stage needs to know the frame of each image and the table does not tell."""
    if "rounds" in config.stages:
        check_frames(read_samples(config.data.samples))
    elif "correlate" in config.stages and config.correlate.rule == "constrained":
        check_rule("constrained", NEIGHBORS, frames_known="frame" in read_samples(config.data.samples).columns)


def _check_rounds(rounds: Config) -> None:
    """Raises `ValueError` for settings that no round can run with."""
    if rounds.train not in TRAINED_BY:
        raise ValueError(f"rounds.train={rounds.train!r}: choose from {', '.join(TRAINED_BY)}")
    if rounds.start not in STARTS and not Path(rounds.start).exists():
        raise ValueError(f"rounds.start={rounds.start!r}: expected {' or '.join(STARTS)}, or a file of weights")
    if rounds.start == "image" and rounds.train == "contrastive":
        raise ValueError(
            "rounds.start='image' needs rounds.train='distillation': contrastive training compares several images of "
            "an identity; start from 'tracklet'"
        )
    if rounds.limit < 1:
        raise ValueError(f"rounds.limit={rounds.limit}: expected at least 1 round")
