"""ResNet50-IBN: ReIDZoo's ResNet50_IBN, Table 5 of the paper.

    python -m cion_jax.main --config=configs/resnet50_ibn.py --workdir=runs/resnet50_ibn \
        --config.data.samples=cional_annos.json --config.data.images=CION_AL

Data: CION-AL, 3,898,086 images of 246,904 identities. Cost: one image of 2 global and 8 local views is
116 GFLOP. Expected after fine-tuning with TransReID at 256x128: mAP / Rank-1 of 93.7 / 96.9 on Market-1501 and
72.3 / 88.5 on MSMT17. Not yet trained with this code.
"""

from ml_collections import ConfigDict

from cion_jax.configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model = "resnet50_ibn"
    return config
