"""The paper's ablations, one config per row: --config=configs/ablation.py:<row>

    python -m cion_jax.main --config=configs/ablation.py:tracklet --workdir=runs/tracklet \
        --config.data.samples=crops.csv --config.data.images=crops --config.extractor.weights=ViT_Base.pth

| row | paper | trains on |
| --- | --- | --- |
| `moco` | Table 4, LUP | each image as its own identity: MoCo v2 with LUP's settings |
| `instance` | Table 4, Fig. 1a | each image as its own identity, K = 1: DINO |
| `tracklet` | Table 4, Fig. 1b | tracklets as tracked |
| `identity` | Table 4, Fig. 1c | identities correlated across videos: CION |
| `level0` to `level3` | Fig. 5 | identities up to a level of denoising: tracklets as tracked, denoised (Eq. 4), \
linked within videos (Eq. 5-6), across videos (Eq. 7) |
| `data10`, `data20` to `data100` | Fig. 6 | that percentage of the identities, each set a subset of the next |

All rows train ResNet50-IBN, and all but `moco` with the same recipe. Rows other than `moco` and `instance` need crops
with the columns `video` and `tracklet`. `tracklet` and `level0` reach the same training in two ways, and so do
`identity`, `level3` and `data100`. All rows train for the same number of epochs, so that fewer images mean fewer steps;
the paper instead gives every level 3.9 M images. The paper's scores in Table 4, Fig. 5 and Fig. 6 are after fine-tuning
with MGN. Not yet trained with this code.
`python -m cion_jax.experiments` trains and scores all rows of a table or figure, with this or any other config.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from cion_jax.configs import base

# LUP's views: random erasing (in the objective) instead of colour jitter. Images are normalised as everywhere here, so
# that all rows are evaluated alike; LUP normalises by the mean and standard deviation of its own crops.
LUP_VIEWS = ConfigDict(
    dict(
        local_views=0,
        global_scale=(0.2, 1.0),
        aspect_ratio=(3 / 4, 4 / 3),
        jitter=0.0,
        grayscale=0.2,
        blur=(0.5, 0.5, 0.0),
        solarize=0.0,
    )
)
CORRELATED = ("extract", "correlate", "pretrain", "export")


class Row(NamedTuple):
    """Settings of a row: stages, levels of correlation, what is one identity, and the fraction of them to train on."""

    stages: tuple[str, ...]
    levels: int = 3
    group_by: str = "identity"
    data_ratio: float = 1.0
    objective: str = "distillation"


ROWS = {
    "moco": Row(("pretrain", "export"), group_by="image", objective="moco"),
    "instance": Row(("pretrain", "export"), group_by="image"),
    "tracklet": Row(("pretrain", "export"), group_by="tracklet"),
    "identity": Row(CORRELATED),
    **{f"level{level}": Row(CORRELATED, levels=level) for level in range(4)},
    **{f"data{percent}": Row(CORRELATED, data_ratio=percent / 100) for percent in range(10, 101, 10)},
}


def get_config(row: str) -> ConfigDict:
    config = base.get_config()
    config.model = "resnet50_ibn"
    ablate(config, row)
    config.stages = ROWS[row].stages
    return config


def ablate(config: ConfigDict, row: str) -> None:
    """Applies a row's settings to `config`, except for its stages."""
    if row not in ROWS:
        raise ValueError(f"configs/ablation.py:{row}: no such row; choose from {', '.join(ROWS)}")
    settings = ROWS[row]
    config.correlate.levels, config.pretrain.data_ratio = settings.levels, settings.data_ratio
    config.pretrain.group_by, config.pretrain.objective = (settings.group_by,), settings.objective
    if settings.group_by == "image":  # an identity has a single image
        config.pretrain.curriculum.update(stage_epochs=(0,), images_per_identity=(1,))
    if settings.objective == "moco":
        config.pretrain.views.update(LUP_VIEWS)
