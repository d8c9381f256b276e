"""Fine-tunes a pre-trained network on labelled or unlabelled person images, and scores it.

    python -m cion_jax.finetune --config=configs/finetune/market_vit_b.py --workdir=W \
        --config.weights=ViT_Base.pth --config.data.root=Market-1501-v15.09.15

The same command continues where an earlier call stopped. W/last.pth (and W/best.pth, if `evaluate.every_epochs` is
given) are in the format of the released fine-tuning code, with cards; W/evaluation.json has the scores.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from cion_jax.evaluation.summary import summary
from cion_jax.finetuning.data import read_benchmark, read_training
from cion_jax.finetuning.train import fine_tune
from cion_jax.runtime.commands import run
from cion_jax.runtime.files import write_json


def main(argv: list[str]) -> None:
    del argv
    config, workdir = flags.FLAGS.config, Path(flags.FLAGS.workdir)
    benchmark = read_benchmark(config)
    reports = fine_tune(config, read_training(config), workdir, benchmark=benchmark)
    if benchmark is not None and reports:
        write_json(workdir / "evaluation.json", reports)
        for name, report in reports.items():
            print(f"{name} (epoch {report['epoch']}): {summary(report)}")
    print(f"In {workdir}: {', '.join(f'{name}.pth' for name in reports)}")


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "A file of configs/finetune.", lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.mark_flag_as_required("config")
    run(main, shares_work=True)
