"""`report.html`: one section per stage, made from the files that a workdir holds so far."""

import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
from flax import nnx

import cion_jax
from cion_jax.conversion import load_weights
from cion_jax.conversion.card import card_path
from cion_jax.evaluation.evidence import Evidence
from cion_jax.models import create_model
from cion_jax.models.vit import MODELS as VITS
from cion_jax.models.vit import ViT
from cion_jax.pipeline.workdir import Workdir, config_file
from cion_jax.reporting.attention import IMAGES, attention_section
from cion_jax.reporting.data import data_section
from cion_jax.reporting.embedding import embedding_section
from cion_jax.reporting.identities import identities_section, links_section
from cion_jax.reporting.noise import noise_section
from cion_jax.reporting.page import Page, Section, Table, render
from cion_jax.reporting.retrieval import lists_section, retrieval_section
from cion_jax.reporting.rounds import rounds_section
from cion_jax.reporting.summary import Outcome, facts_table, settings_table, summary_section
from cion_jax.reporting.training import Log, training_concerns, training_section
from cion_jax.runtime.config import Config
from cion_jax.runtime.files import atomic_path, read_json, write_json
from cion_jax.runtime.metrics import read_metrics
from cion_jax.runtime.progress import console, progress
from cion_jax.samples import SampleTable, open_images, read_samples
from cion_jax.samples.contents import contents
from cion_jax.samples.examination import examine

MOST_EXAMINED = 100_000  # images that the report decodes by itself to find defects
# Names of the networks, by the grouping they were trained on; `network_names` adds "image".
_NETWORKS = {
    "untrained": "untrained",
    "tracklet": "pre-trained on raw tracklets",
    "identity": "pre-trained on identities (CION)",
    "person": "pre-trained on true persons",
    "extractor": "extractor (trained with labels)",
    "rounds": "extractor of the last good round (trained without labels)",
}

_IMAGE_METHODS = {"distillation": "DINO", "moco": "MoCo v2"}  # by the objective of pre-training


def network_names(config: Config) -> dict[str, str]:
    """Names of a run's networks in reports, by the grouping they were trained on."""
    return _NETWORKS | {"image": f"pre-trained, every image by itself ({_IMAGE_METHODS[config.pretrain.objective]})"}


def write_page(workdir: Workdir) -> Path:
    """Writes `report.html`; a section whose files are missing or unreadable is listed with the reason."""
    sections: list[Section] = []
    left_out: list[tuple[str, str]] = []
    for title, make in _SECTIONS.items():
        try:
            if section := make(workdir):
                sections.append(section)
        except (ValueError, OSError) as reason:
            left_out.append((title, str(reason)))
            console.print(f"Left out of the report: {title} ({reason})", markup=False, highlight=False, soft_wrap=True)
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    made = f"Model {workdir.config.model}. Written {now} by cion_jax {cion_jax.__version__} from {workdir.root.name}."
    page = Page("Cross-video identity correlating pre-training", made, sections, left_out)
    path = workdir.page
    with atomic_path(path) as temporary:
        temporary.write_text(render(page), encoding="utf-8")
    return path


def _summary(workdir: Workdir) -> Section:
    outcome = Outcome(
        model=workdir.config.model,
        correlation=_read_if_there(workdir.correlation_report),
        scores=_named_scores(workdir) if workdir.scores.exists() else None,
        before=network_names(workdir.config)["untrained"],
        after=network_names(workdir.config)[workdir.config.pretrain.group_by[-1]],
        seconds=_read_if_there(workdir.seconds) or {},
        concerns=training_concerns(_logs(workdir), **_sizes_of_training(workdir)),
        provenance=[_facts(workdir), settings_table(read_json(config_file(workdir.root)))],
    )
    return summary_section(outcome)


def _data(workdir: Workdir) -> Section:
    ingested = _read_if_there(workdir.ingest_report)
    kept = workdir.root / "doctor.json"
    if not kept.exists():
        table = read_samples(workdir.samples)
        if len(table) > MOST_EXAMINED:
            return data_section({"contents": contents(table)}, ingested)
        write_json(kept, examine(table, workdir.images, progress=progress))
    return data_section(read_json(kept), ingested)


def _rounds(workdir: Workdir) -> Section | None:
    if "rounds" not in workdir.config.stages:
        return None
    _ran(workdir.rounds_report, "rounds")
    return rounds_section(read_json(workdir.rounds_report))


def _noise(workdir: Workdir) -> Section:
    report, table = _correlated(workdir)
    return noise_section(report, table["identity"], table["person"] if "person" in table.columns else None)


def _identities(workdir: Workdir) -> Section:
    return identities_section(_correlated(workdir)[1], open_images(workdir.images))


def _links(workdir: Workdir) -> Section:
    report, table = _correlated(workdir)
    return links_section(report, table, open_images(workdir.images))


def _training(workdir: Workdir) -> Section:
    return training_section(_logs(workdir), **_sizes_of_training(workdir))


def _retrieval(workdir: Workdir) -> Section:
    _ran(workdir.scores, "evaluate")
    return retrieval_section(_named_scores(workdir))


def _lists(workdir: Workdir) -> Section:
    _ran(workdir.scores, "evaluate")
    by = workdir.config.pretrain.group_by[-1]
    return lists_section(network_names(workdir.config)[by], Evidence.load(workdir.evidence(by)))


def _embedding(workdir: Workdir) -> Section:
    _ran(workdir.scores, "evaluate")
    names = "untrained", *workdir.config.pretrain.group_by
    return embedding_section(
        {network_names(workdir.config)[name]: Evidence.load(workdir.evidence(name)) for name in names}
    )


def _attention(workdir: Workdir) -> Section:
    config, by = workdir.config, workdir.config.pretrain.group_by[-1]
    if config.model not in VITS:
        raise ValueError(f"{config.model} has no class token that attends to patches; ViTs do")
    teacher = workdir.teacher(by)
    _ran(teacher, "pretrain")
    model = create_model(config.model)
    load_weights(model, teacher)
    table = read_samples(workdir.samples)
    rows = np.linspace(0, len(table) - 1, min(IMAGES, len(table))).astype(int)
    some = table.select(rows)["file_path"].tolist()
    size = config.pretrain.views.global_size
    return attention_section(
        network_names(workdir.config)[by], cast(ViT, model), open_images(workdir.images), some, size
    )


_SECTIONS: Mapping[str, Callable[[Workdir], Section | None]] = {
    "Summary": _summary,
    "Input data": _data,
    "Bootstrapped rounds": _rounds,
    "Noise and identities": _noise,
    "Identities": _identities,
    "Least certain links": _links,
    "Self-distillation": _training,
    "Retrieval": _retrieval,
    "Ranked lists": _lists,
    "t-SNE of features": _embedding,
    "Attention": _attention,
}


def _ran(marker: Path, stage: str) -> None:
    if not marker.exists():
        raise ValueError(f"the {stage} stage has not been run here")


def _correlated(workdir: Workdir) -> tuple[dict[str, Any], SampleTable]:
    report = workdir.correlation_report
    _ran(report, "correlate")
    return read_json(report), read_samples(workdir.identities)


def _named_scores(workdir: Workdir) -> dict[str, dict[str, Any]]:
    return {network_names(workdir.config)[name]: scores for name, scores in read_json(workdir.scores).items()}


def _read_if_there(path: Path) -> Any:
    return read_json(path) if path.exists() else None


def _logs(workdir: Workdir) -> dict[str, Log]:
    runs = workdir.config.pretrain.group_by
    return {network_names(workdir.config)[by]: read_metrics(workdir.metrics(by)) for by in runs}


def _sizes_of_training(workdir: Workdir) -> dict[str, int]:
    config = workdir.config
    shape = nnx.eval_shape(lambda: create_model(config.model))
    contrastive = config.pretrain.objective == "moco"  # it chooses among the queue and the image's own key
    outputs = config.pretrain.moco.queue + 1 if contrastive else config.pretrain.head.prototypes
    return {"prototypes": outputs, "embed_dim": shape.embed_dim}


def _facts(workdir: Workdir) -> Table:
    """Versions, data and weights: what is needed to repeat the run and to recognise its weights."""
    facts = {"report written with Python": platform.python_version()}
    facts |= {f"report written with {name}": metadata.version(name) for name in ("jax", "flax", "numpy")}
    for by in workdir.config.pretrain.group_by:
        if card := _read_if_there(card_path(workdir.teacher(by))):
            name = network_names(workdir.config)[by]
            facts |= {f"{name}: trained with {library}": version for library, version in card["versions"].items()}
            facts |= {f"{name}: SHA-256 of data": str(card["data"]), f"{name}: SHA-256 of weights": card["sha256"]}
            facts[f"{name}: parameters"] = f"{card['parameters']:,}"
    return facts_table(facts)
