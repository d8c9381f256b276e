"""The whole method without a labelled extractor, on rendered people; about ten minutes on two CPU cores.

    python -m cion_jax.main --config=configs/bootstrap.py --workdir=runs/bootstrap

The demo (`cion_jax/configs/demo.py`), with rounds in place of an extractor trained on labels. On your own crops, with
the columns video, tracklet and frame, and the settings of another config:

    python -m cion_jax.main --config=configs/vit_b.py --workdir=runs/mine --config.data.samples=crops.parquet \
        --config.data.images=crops --config.stages="('rounds','pretrain','export')"

docs/bootstrap.md says what was measured.
"""

from ml_collections import ConfigDict

from cion_jax.configs import demo


def get_config() -> ConfigDict:
    config = demo.get_config()
    config.stages = ("street", "rounds", "pretrain", "evaluate", "export")
    config.street.labelled_people = 1  # the fewest that a street can have; they are not used
    config.pretrain.group_by = ("identity",)
    config.correlate.rule = "constrained"  # closure chains more with every round
    config.correlate.drop_background = True
    config.rounds.limit = 2
    return config
