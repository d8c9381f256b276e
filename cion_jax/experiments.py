"""Reproduces a table or figure of the paper on your data.

    python -m cion_jax.experiments --which=table4 --workdir=W [--seeds=3] [--finetune=supervised]
    python -m cion_jax.experiments --which=table3 --workdir=W --weights=ZOO --data=market1501=DIR [--data=msmt17=DIR]

Table 4 and Fig. 5-7 train and score every row of configs/ablation.py; without --config on the rendered street of
configs/demo.py. Tables 1, 2, 3 and 6 fine-tune pre-trained models. What is complete is skipped; W/<which>.md and .json
have the result. See docs/experiments.md.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from cion_jax.configs import demo, finetune
from cion_jax.pipeline.experiments.catalogue import EXPERIMENTS
from cion_jax.pipeline.experiments.experiment import run_experiment
from cion_jax.pipeline.experiments.finetuning import METHODS
from cion_jax.pipeline.experiments.zoo import TABLES, run_zoo_table
from cion_jax.runtime.commands import run


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    root = Path(values.workdir)
    refuse_unused_flags(values)
    if values.which in TABLES:
        if not (values.weights and values.data):
            raise ValueError(
                f"{values.which} needs --weights=FOLDER, and --data=market1501=DIR, --data=msmt17=DIR or both"
            )
        selection = {"weights": Path(values.weights), "models": values.models, "seeds": range(values.seeds)}
        print(run_zoo_table(values.which, root, datasets=dict(map(_dataset, values.data)), **selection))
        print(f"In {root}: {values.which}.md, {values.which}.json")
        return
    method = None if values.finetune == "none" else values.finetune
    print(run_experiment(values.which, values.config, root, seeds=values.seeds, finetune=method))
    name = f"{values.which}-{method}" if method else values.which
    print(f"In {root}: {name}.md, {name}.json, {name}.png")


def refuse_unused_flags(values: flags.FlagValues) -> None:
    """Raises ValueError for a flag that is given and that this table or figure does not use."""
    unused = ("finetune", "config") if values.which in TABLES else ("weights", "data", "models")
    if given := [f"--{name}" for name in unused if values[name].present]:
        others = EXPERIMENTS if values.which in TABLES else TABLES
        raise ValueError(
            f"{values.which} does not use {', '.join(given)}, only {', '.join(others)} do; leave out what is not used"
        )


def _dataset(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if name not in finetune.DATASETS or not folder:
        raise ValueError(f"--data={text}: expected NAME=DIR, with a name of {', '.join(finetune.DATASETS)}")
    return name, Path(folder)


if __name__ == "__main__":
    flags.DEFINE_enum("which", None, [*TABLES, *EXPERIMENTS], "Which table or figure of the paper.", required=True)
    flags.DEFINE_string("workdir", None, "Folder that everything is written to.", required=True)
    flags.DEFINE_integer("seeds", 3, "Runs of every row, each with a seed of its own.", lower_bound=1)
    flags.DEFINE_enum("finetune", "none", ["none", *METHODS], "Fine-tune every network before it is scored.")
    flags.DEFINE_string("weights", None, "Tables 1, 2, 3, 6: folder of pre-trained weights, <model>.pth.")
    flags.DEFINE_multi_string("data", [], "Tables 1, 2, 3, 6: NAME=DIR of a data set; may be given twice.")
    flags.DEFINE_string("models", "*", "Tables 1, 2, 3, 6: shell pattern of the models to run.")
    config_flags.DEFINE_config_file("config", demo.__file__, "A file of configs/.", lock_config=True)
    run(main)
