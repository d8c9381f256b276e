"""Retrieval scores of a model on a benchmark.

python -m cion_jax.evaluate --dataset=market1501 --root=DIR --model=M --weights=W [--out=report.json]
"""

from typing import Any

from absl import flags
from flax import nnx

from cion_jax.evaluation import Benchmark, read_market1501, retrieval_scores
from cion_jax.extract import define_model_flags, extract_features, model_from_flags
from cion_jax.runtime.commands import run
from cion_jax.runtime.files import write_json

READERS = {"market1501": read_market1501}
_SHOWN = {"mAP": "mAP", "Rank-1": "rank1", "Rank-5": "rank5", "Rank-10": "rank10", "mINP": "mINP"}


def evaluate(
    model: nnx.Module,
    benchmark: Benchmark,
    *,
    size: tuple[int, int] = (256, 128),
    batch_size: int = 64,
    ignore_camera: bool = False,
) -> dict[str, Any]:
    """Extracts the features of a benchmark and scores them (`cion_jax.evaluation.retrieval_scores`).

    Returns what `--out` holds: scores in [0, 1] and counts. Undecodable images are left out and counted.
    """
    queries = len(benchmark.query.paths)
    result = extract_features(
        model,
        benchmark.query.paths + benchmark.gallery.paths,
        size=size,
        batch_size=batch_size,
        dtype="float32",
    )
    in_query = result.rows < queries
    query = benchmark.query.select(result.rows[in_query])
    gallery = benchmark.gallery.select(result.rows[~in_query] - queries)
    scores = retrieval_scores(
        result.features[in_query],
        result.features[~in_query],
        query.ids,
        gallery.ids,
        query.cameras,
        gallery.cameras,
        ignore_camera=ignore_camera,
    )
    return {
        "mAP": scores.mAP,
        **{f"rank{k}": float(scores.cmc[k - 1]) for k in (1, 5, 10)},
        "mINP": scores.mINP,
        "queries": scores.queries,
        "queries_absent_from_gallery": scores.absent,
        "queries_matched_by_own_camera_only": scores.same_camera,
        "gallery": len(gallery.paths),
        "undecodable": len(result.undecodable),
        "ignore_camera": ignore_camera,
    }


def summary(report: dict[str, Any]) -> str:
    """The report in a few lines, with the reasons why queries or images were left out."""
    lines = ["  ".join(f"{name} {100 * report[key]:.1f}" for name, key in _SHOWN.items())]
    lines.append(f"{report['queries']} queries scored against {report['gallery']} gallery images")
    if absent := report["queries_absent_from_gallery"]:
        lines.append(f"{absent} queries left out: their identity is not in the gallery")
    if alone := report["queries_matched_by_own_camera_only"]:
        lines.append(f"{alone} queries left out: their own camera took all their matches (--ignore_camera keeps them)")
    if undecodable := report["undecodable"]:
        lines.append(f"{undecodable} images left out: they could not be decoded")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    benchmark = READERS[values.dataset](values.root)
    report = evaluate(
        model_from_flags(),
        benchmark,
        size=(values.height, values.width),
        batch_size=values.batch_size,
        ignore_camera=values.ignore_camera,
    )
    print(summary(report))
    if values.out:
        about = {"dataset": values.dataset, "model": values.model, "weights": values.weights}
        write_json(values.out, about | report)


if __name__ == "__main__":
    define_model_flags()
    flags.DEFINE_enum("dataset", "market1501", sorted(READERS), "Layout of the benchmark.")
    flags.DEFINE_string("root", None, "Folder of the benchmark.", required=True)
    flags.DEFINE_bool("ignore_camera", False, "Keep matches from the query's own camera (data with one camera).")
    flags.DEFINE_string("out", None, "Report to write (.json).")
    run(main)
