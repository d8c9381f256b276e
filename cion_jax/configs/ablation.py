"""The paper's ablations, a row each: --config=configs/ablation.py:<row>

    python -m cion_jax.main --config=configs/ablation.py:tracklet --workdir=runs/tracklet \
        --config.data.samples=crops.csv --config.data.images=crops --config.extractor.weights=ViT_Base.pth

| row | paper | trains on |
| --- | --- | --- |
| `instance` | Table 4, Fig. 1a | every image an identity of its own, K = 1: this is DINO |
| `tracklet` | Table 4, Fig. 1b | tracklets as the tracker cut them |
| `identity` | Table 4, Fig. 1c | what correlation finds across videos: CION |
| `level0` to `level3` | Fig. 5 | what it finds up to a level: tracklets as tracked, denoised (Eq. 4), linked within \
videos (Eq. 5-6), across videos (Eq. 7) |
| `data10`, `data20` to `data100` | Fig. 6 | that many percent of the identities, each ratio among the next |

All are ResNet50-IBN with the same recipe, and crops need `video` and `tracklet` columns, but for `instance`.
`tracklet` and `level0` are the same training by two ways, and so are `identity`, `level3` and `data100`. The number
of epochs is the same for all rows, so that fewer data are fewer steps; the paper instead gives every level 3.9 M
images. Expected: Fig. 5 and 6 and Table 4 read after fine-tuning with MGN. Not yet trained with this code.
`python -m cion_jax.experiments` trains and scores all rows of a table or figure, of this or any other config.
"""

from ml_collections import ConfigDict

from cion_jax.configs import base

CORRELATED = ("extract", "correlate", "pretrain", "export")
# What each row changes: (stages, levels of correlation, what is an identity, share of the identities).
ROWS = {
    "instance": (("pretrain", "export"), 3, "image", 1.0),
    "tracklet": (("pretrain", "export"), 3, "tracklet", 1.0),
    "identity": (CORRELATED, 3, "identity", 1.0),
    **{f"level{level}": (CORRELATED, level, "identity", 1.0) for level in range(4)},
    **{f"data{percent}": (CORRELATED, 3, "identity", percent / 100) for percent in range(10, 101, 10)},
}


def get_config(row: str) -> ConfigDict:
    config = base.get_config()
    config.model = "resnet50_ibn"
    ablate(config, row)
    config.stages = ROWS[row][0]
    return config


def ablate(config: ConfigDict, row: str) -> None:
    """Changes what the row is about, but for the stages."""
    if row not in ROWS:
        raise ValueError(f"configs/ablation.py:{row}: no such row; choose from {', '.join(ROWS)}")
    _, config.correlate.levels, group_by, config.pretrain.data_ratio = ROWS[row]
    config.pretrain.group_by = (group_by,)
    if group_by == "image":  # there is one image to draw
        config.pretrain.curriculum.update(stage_epochs=(0,), images_per_identity=(1,))
