"""The paper's ablations, one config per row: --config=configs/ablation.py:<row>

    python -m cion_jax.main --config=configs/ablation.py:tracklet --workdir=runs/tracklet \
        --config.data.samples=crops.csv --config.data.images=crops --config.extractor.weights=ViT_Base.pth

| row | paper | trains on |
| --- | --- | --- |
| `instance` | Table 4, Fig. 1a | each image as its own identity, K = 1: DINO |
| `tracklet` | Table 4, Fig. 1b | tracklets as tracked |
| `identity` | Table 4, Fig. 1c | identities correlated across videos: CION |
| `level0` to `level3` | Fig. 5 | identities up to a level of denoising: tracklets as tracked, denoised (Eq. 4), \
linked within videos (Eq. 5-6), across videos (Eq. 7) |
| `data10`, `data20` to `data100` | Fig. 6 | that percentage of the identities, each set a subset of the next |

All rows train ResNet50-IBN with the same recipe. All but `instance` need crops with the columns `video` and
`tracklet`. `tracklet` and `level0` reach the same training in two ways, and so do `identity`, `level3` and `data100`.
All rows train for the same number of epochs, so that fewer images mean fewer steps; the paper instead gives every level
3.9 M images. The paper's scores in Table 4, Fig. 5 and Fig. 6 are after fine-tuning with MGN. Not yet trained with this
code.
`python -m cion_jax.experiments` trains and scores all rows of a table or figure, with this or any other config.
"""

from ml_collections import ConfigDict

from cion_jax.configs import base

CORRELATED = ("extract", "correlate", "pretrain", "export")
# Settings of each row: (stages, levels of correlation, group_by, fraction of the identities).
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
    """Applies a row's settings to `config`, except for its stages."""
    if row not in ROWS:
        raise ValueError(f"configs/ablation.py:{row}: no such row; choose from {', '.join(ROWS)}")
    _, config.correlate.levels, group_by, config.pretrain.data_ratio = ROWS[row]
    config.pretrain.group_by = (group_by,)
    if group_by == "image":  # an identity has a single image
        config.pretrain.curriculum.update(stage_epochs=(0,), images_per_identity=(1,))
