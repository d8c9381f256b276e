"""Retrieval scores of networks on benchmarks.

    python -m cion_jax.evaluate --dataset=market1501 --root=DIR --model=M --weights=W [--rerank] [--out=scores.json]

Several data sets or networks make a table of mAP / Rank-1, for example across domains:

    python -m cion_jax.evaluate --dataset=market1501=DIR --dataset=msmt17=DIR --model=resnet50_ibn \
        --weights=trained_on_market.pth --weights=trained_on_msmt17.pth

A data set without `=DIR` is looked for in `--root`, under the folder names that ReID code bases use. A single `--model`
serves all weights; several are paired with the weights in order. `--out` lists one report per network and data set and
is rewritten after each, so that finished evaluations are kept.
"""

from typing import Any

from absl import flags

from cion_jax.evaluation import KReciprocal
from cion_jax.evaluation.run import BENCHMARKS, evaluate, evaluate_probes, networks, read_target
from cion_jax.evaluation.summary import summary, table
from cion_jax.finetuning.weights import load_network, untrained
from cion_jax.runtime.commands import define_model_flags, run
from cion_jax.runtime.files import write_json


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    chosen = networks(values.model, values.weights, random_weights=values.random_weights)
    targets = [read_target(given, values.root, values.probe) for given in values.dataset]
    rerank = KReciprocal() if values.rerank else None
    reports = []
    for network in chosen:
        if network.weights:
            loaded = load_network(
                network.model, network.weights, section=values.section, resample_positions=values.resample_positions
            )
        else:
            loaded = untrained(network.model)
        settings: dict[str, Any] = loaded.preprocessing.resized(values.height, values.width)._asdict()
        settings["batch_size"] = values.batch_size
        for target in targets:
            report = network._asdict() | {"dataset": target.dataset, "root": target.root}
            if network.weights:
                report["weights_sha256"] = loaded.about["weights_sha256"]
            report |= evaluate(
                loaded.network, target.benchmark, ignore_camera=values.ignore_camera, rerank=rerank, **settings
            )
            if target.training:
                report["probe"] = {
                    "split": values.probe,
                    **evaluate_probes(loaded.network, target.training, **settings),
                }
            reports.append(report)
            if values.out:
                write_json(values.out, reports)
            print(f"{network.model} ({network.weights or 'untrained'}) on {report['source']}\n{summary(report)}\n")
    if len(reports) > 1:
        print(table(reports))


if __name__ == "__main__":
    define_model_flags()
    # Overrides the single --model and --weights of the other commands.
    flags.DEFINE_multi_string("model", None, "Name of a model.", required=True, allow_override=True)
    flags.DEFINE_multi_string("weights", [], "Its weights, as of extract.", allow_override=True)
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
