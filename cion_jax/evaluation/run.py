"""Evaluation of networks on benchmarks: features of queries and gallery, retrieval scores and probes."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from cion_jax.evaluation.benchmark import Benchmark, LabelledImages
from cion_jax.evaluation.evidence import gather
from cion_jax.evaluation.market1501 import read_market1501
from cion_jax.evaluation.msmt17 import read_msmt17
from cion_jax.evaluation.probes import probe
from cion_jax.evaluation.reranking import KReciprocal
from cion_jax.evaluation.retrieval import RetrievalScores, retrieval_scores
from cion_jax.features.extraction import RGB, extract_features
from cion_jax.models import create_model, list_models
from cion_jax.runtime.commands import check_weights_given
from cion_jax.samples import IMAGENET_MEAN, IMAGENET_STD
from cion_jax.samples.readers import read_dataset

BENCHMARKS: dict[str, Callable[[str], Benchmark]] = {"market1501": read_market1501, "msmt17": read_msmt17}


class Network(NamedTuple):
    """A model by name, and the file of its weights; None leaves it untrained."""

    model: str
    weights: str | None


class Target(NamedTuple):
    """A data set that networks are evaluated on; `training` is None unless its features are probed."""

    dataset: str
    root: str
    benchmark: Benchmark
    training: LabelledImages | None


def evaluate(
    model: nnx.Module,
    benchmark: Benchmark,
    *,
    size: tuple[int, int] = (256, 128),
    mean: RGB = IMAGENET_MEAN,
    std: RGB = IMAGENET_STD,
    batch_size: int = 64,
    ignore_camera: bool = False,
    rerank: KReciprocal | None = None,
    evidence: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Extracts the features of a benchmark and scores them with `retrieval_scores`.

    Args:
        model: maps normalised images `[b, h, w, 3]` to features `[b, dim]`.
        benchmark: queries and gallery; undecodable images are left out and counted.
        size: height and width in pixels that images are resized to.
        mean, std: normalisation of RGB in [0, 1].
        batch_size: images per batch.
        ignore_camera: keep matches from the query's own camera.
        rerank: settings of k-reciprocal re-ranking, scored in addition.
        evidence: `.npz` to write with ranked lists and features for a report (`cion_jax.evaluation.evidence`).

    Returns:
        mAP, Rank-1/5/10 and mINP in [0, 1], and counts; with `rerank`, the re-ranked scores as `reranked`.

    Raises:
        ValueError: no query or no gallery image can be decoded, or no query has a match.
    """
    queries = len(benchmark.query.paths)
    paths = benchmark.query.paths + benchmark.gallery.paths
    result = extract_features(model, paths, size=size, mean=mean, std=std, batch_size=batch_size, dtype="float32")
    kept = int(np.searchsorted(result.rows, queries))  # queries come first
    for side, first, left in (("queries", 0, kept), ("gallery images", queries, len(result.rows) - kept)):
        if not left:
            raise ValueError(f"none of the {side} can be decoded; the first: {result.undecodable[first]}")
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
    model: nnx.Module,
    images: LabelledImages,
    *,
    size: tuple[int, int] = (256, 128),
    mean: RGB = IMAGENET_MEAN,
    std: RGB = IMAGENET_STD,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Extracts the features of labelled images and probes them (`cion_jax.evaluation.probe`)."""
    options: dict[str, Any] = {"size": size, "mean": mean, "std": std, "batch_size": batch_size}
    result = extract_features(model, images.paths, dtype="float32", **options)
    kept = images.select(result.rows)
    return probe(result.features, kept.ids, kept.cameras)._asdict()


def networks(models: Sequence[str], weights: Sequence[str], *, random_weights: bool) -> list[Network]:
    """Pairs models with weight files.

    Raises:
        ValueError: an unknown model, a missing file, or numbers of models and files that cannot be paired.
    """
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
    """Reads a data set given as NAME or NAME=DIR: its benchmark and, if `split` is given, training images to probe."""
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
    """The training images of a data set, read by `cion_jax.samples.readers`."""
    if dataset == "market1501" and split != "train":
        raise ValueError(f"--probe={split}: market1501 has no other training images than 'train'")
    options = {"split": split} if dataset == "msmt17" else {}
    table = read_dataset(dataset, root, **options).samples
    return LabelledImages([str(Path(root) / path) for path in table["file_path"]], table["identity"], table["camera"])
