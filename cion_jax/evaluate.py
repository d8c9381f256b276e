"""Retrieval scores of networks on benchmarks.

    python -m cion_jax.evaluate --dataset=market1501 --root=DIR --model=M --weights=W [--rerank] [--out=scores.json]

Several data sets or networks make a table of mAP / Rank-1, for example of what was trained on A and is tested on B:

    python -m cion_jax.evaluate --dataset=market1501=DIR --dataset=msmt17=DIR --model=resnet50_ibn \
        --weights=trained_on_market.pth --weights=trained_on_msmt17.pth

A data set without `=DIR` is looked for in `--root`, under the names that ReID code bases give its folder. One `--model`
is that of all weights, several go with their weights in order. `--out` has a list of reports, one for each network on
each data set; it is written after each, so what is done is kept.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from flax import nnx

from cion_jax.conversion import load_with_provenance
from cion_jax.evaluation import (
    Benchmark,
    KReciprocal,
    LabelledImages,
    RetrievalScores,
    probe,
    read_market1501,
    read_msmt17,
    retrieval_scores,
)
from cion_jax.evaluation.evidence import gather
from cion_jax.evaluation.summary import summary, table
from cion_jax.extract import check_weights_given, define_model_flags, extract_features
from cion_jax.models import create_model, list_models
from cion_jax.runtime.commands import run
from cion_jax.runtime.files import write_json
from cion_jax.samples.readers import read_dataset

BENCHMARKS: dict[str, Callable[[str], Benchmark]] = {"market1501": read_market1501, "msmt17": read_msmt17}


class Network(NamedTuple):
    """A model by name, and the file of its weights; None leaves it untrained."""

    model: str
    weights: str | None


class Target(NamedTuple):
    """What networks are evaluated on; `training` is None without `--probe`."""

    dataset: str
    root: str
    benchmark: Benchmark
    training: LabelledImages | None


def evaluate(
    model: nnx.Module,
    benchmark: Benchmark,
    *,
    size: tuple[int, int] = (256, 128),
    batch_size: int = 64,
    ignore_camera: bool = False,
    rerank: KReciprocal | None = None,
    evidence: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Extracts the features of a benchmark and scores them (`cion_jax.evaluation.retrieval_scores`).

    Returns scores in [0, 1] and counts; with `rerank`, those after re-ranking too. Undecodable images are left out and
    counted. What pictures are made from goes to `evidence` (`.npz`, see `cion_jax.evaluation.evidence`).
    """
    queries = len(benchmark.query.paths)
    paths = benchmark.query.paths + benchmark.gallery.paths
    result = extract_features(model, paths, size=size, batch_size=batch_size, dtype="float32")
    kept = int(np.searchsorted(result.rows, queries))  # queries come first
    query = benchmark.query.select(result.rows[:kept])
    gallery = benchmark.gallery.select(result.rows[kept:] - queries)

    def scored(rerank: KReciprocal | None) -> RetrievalScores:
        features = result.features[:kept], result.features[kept:]
        labels = query.ids, gallery.ids, query.cameras, gallery.cameras
        return retrieval_scores(*features, *labels, ignore_camera=ignore_camera, rerank=rerank)

    scores = scored(None)
    if evidence is not None:
        sides = query, gallery, result.features[:kept], result.features[kept:]
        gather(*sides, scores.average_precision, ignore_camera=ignore_camera).save(evidence)
    report = {
        **_numbers(scores),
        "queries": scores.queries,
        "queries_absent_from_gallery": scores.absent,
        "queries_matched_by_own_camera_only": scores.same_camera,
        "gallery": len(gallery.paths),
        "undecodable": len(result.undecodable),
        "ignore_camera": ignore_camera,
        "source": benchmark.source,
    }
    return report if rerank is None else report | {"reranked": _numbers(scored(rerank)) | rerank._asdict()}


def _numbers(scores: RetrievalScores) -> dict[str, float]:
    return {
        "mAP": scores.mAP,
        **{f"rank{k}": float(scores.cmc[k - 1]) for k in (1, 5, 10)},
        "mINP": scores.mINP,
    }


def evaluate_probes(
    model: nnx.Module, images: LabelledImages, *, size: tuple[int, int] = (256, 128), batch_size: int = 64
) -> dict[str, Any]:
    """Extracts the features of labelled images and probes them (`cion_jax.evaluation.probe`)."""
    result = extract_features(model, images.paths, size=size, batch_size=batch_size, dtype="float32")
    kept = images.select(result.rows)
    return probe(result.features, kept.ids, kept.cameras)._asdict()


def networks(models: Sequence[str], weights: Sequence[str], *, random_weights: bool) -> list[Network]:
    """Which networks the flags mean, seen to exist. Raises ValueError for flags that do not go together."""
    check_weights_given(weights, random_weights=random_weights)
    if unknown := [name for name in models if name not in list_models()]:
        create_model(unknown[0])  # raises, naming the closest models
    if missing := [path for path in weights if not Path(path).exists()]:
        raise ValueError(f"{missing[0]}: no such file of weights")
    if random_weights:
        return [Network(model, None) for model in models]
    if len(models) not in (1, len(weights)):
        raise ValueError(
            f"{len(models)} models and {len(weights)} files of weights: give --model once for all, or once for each "
            "--weights, in the same order"
        )
    return [Network(*pair) for pair in zip(list(models) * (len(weights) // len(models)), weights)]


def read_target(given: str, root: str | os.PathLike | None, split: str | None) -> Target:
    """Reads a data set named as in `--dataset`: its benchmark and, to be probed, a split of its training images."""
    name, _, own = given.partition("=")
    if name not in BENCHMARKS:
        raise ValueError(
            f"--dataset={given}: no data set {name!r}; expected one of {', '.join(BENCHMARKS)}, or NAME=DIR"
        )
    folder = own or root
    if not folder:
        raise ValueError(f"--dataset={given}: where is it? Give --dataset={name}=DIR, or --root=DIR for all")
    training = training_images(name, folder, split) if split else None
    return Target(name, str(folder), BENCHMARKS[name](str(folder)), training)


def training_images(dataset: str, root: str | os.PathLike, split: str) -> LabelledImages:
    """The training images of a data set, as `cion_jax.samples.readers` has them."""
    if dataset == "market1501" and split != "train":
        raise ValueError(f"--probe={split}: market1501 has no other training images than 'train'")
    options = {"split": split} if dataset == "msmt17" else {}
    table = read_dataset(dataset, root, **options).samples
    return LabelledImages([str(Path(root) / path) for path in table["file_path"]], table["identity"], table["camera"])


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    chosen = networks(values.model, values.weights, random_weights=values.random_weights)
    targets = [read_target(given, values.root, values.probe) for given in values.dataset]
    settings: dict[str, Any] = {"size": (values.height, values.width), "batch_size": values.batch_size}
    rerank = KReciprocal() if values.rerank else None
    reports = []
    for network in chosen:
        model = create_model(network.model)
        about = load_with_provenance(model, network.weights) if network.weights else {}
        for target in targets:
            report = network._asdict() | {"dataset": target.dataset, "root": target.root}
            if network.weights:
                report["weights_sha256"] = about["weights_sha256"]
            report |= evaluate(model, target.benchmark, ignore_camera=values.ignore_camera, rerank=rerank, **settings)
            if target.training:
                report["probe"] = {"split": values.probe, **evaluate_probes(model, target.training, **settings)}
            reports.append(report)
            if values.out:
                write_json(values.out, reports)
            print(f"{network.model} ({network.weights or 'untrained'}) on {report['source']}\n{summary(report)}\n")
    if len(reports) > 1:
        print(table(reports))


if __name__ == "__main__":
    define_model_flags()
    # Other commands take one model with one file of weights; here there may be several.
    flags.DEFINE_multi_string("model", None, "Name of a model.", required=True, allow_override=True)
    flags.DEFINE_multi_string("weights", [], "Its weights: a .pth, or a file of convert's.", allow_override=True)
    flags.DEFINE_multi_string(
        "dataset",
        ["market1501"],
        f"A data set and its folder, as NAME=DIR, or NAME ({', '.join(BENCHMARKS)}) in --root.",
    )
    flags.DEFINE_string("root", None, "Folder of the data sets that are given without their own.")
    flags.DEFINE_bool("ignore_camera", False, "Keep matches from the query's own camera (data with one camera).")
    flags.DEFINE_bool("rerank", False, "Score k-reciprocal re-ranking too (k1 20, k2 6, lambda 0.3).")
    flags.DEFINE_enum(
        "probe",
        None,
        ["train", "train+val"],
        "Probe features with kNN and a linear classifier on this split of the training images (Market-1501 has only "
        "train; published results on MSMT17 differ in which they use).",
    )
    flags.DEFINE_string("out", None, "File to write (.json): a list of reports.")
    run(main)
