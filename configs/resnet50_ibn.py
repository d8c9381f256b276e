"""ResNet50-IBN: ReIDZoo's `ResNet50_IBN`.

    python -m cion_jax.main --config=configs/resnet50_ibn.py --workdir=runs/resnet50_ibn \
        --config.data.samples=cional_annos.json --config.data.images=CION_AL

Data: CION-AL, 3,898,086 images of 246,904 identities.

Batch and views (Table 5): 8 V100 GPUs with 120 images each, a global batch of 960, and 2 global + 8 local views. These
are the defaults of `configs/base.py`, so this config sets only the model. Each GPU's share must be a multiple of 2, 4,
6 and 8, the images per identity of the curriculum: 120 is.

Cost: 116 GFLOP per image (all 10 views, forward and backward), 4.5e19 FLOP for 100 epochs of CION-AL. The authors
report about 5 days on 8 V100 GPUs.

Expected: mAP / Rank-1 of 93.7 / 96.9 on Market-1501 and 72.3 / 88.5 on MSMT17, after fine-tuning with TransReID at
256x128 (93.3 / 97.3 and 74.3 / 89.8 with MGN). Not yet trained with this code.
"""

from ml_collections import ConfigDict

from cion_jax.configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model = "resnet50_ibn"
    return config
