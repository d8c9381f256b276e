"""ViT-Base with the ICS stem: ReIDZoo's `ViT_Base`.

    python -m cion_jax.main --config=configs/vit_b.py --workdir=runs/vit_b \
        --config.data.samples=cional_annos.json --config.data.images=CION_AL

Data: CION-AL, 3,898,086 images of 246,904 identities.

Batch and views: Table 5 of the paper gives every model its own batch size and number of local views, as many as 8
V100 GPUs of 32 GB hold. Its row for ViT-Base is not copied here: this config keeps ResNet50-IBN's batch of 960 with
2 global + 8 local views. Compiled for 8 GPUs with 120 images each, a step needs 33 GiB per GPU besides the state
(ResNet50-IBN: 14). To train with Table 5's values, or with those that fit your devices, set both:

    --config.pretrain.batch_size=B --config.pretrain.views.local_views=V

B / devices must be a multiple of 24 (2, 4, 6 and 8 images per identity), and the learning rate scales with B. If B does
not fit, `--config.pretrain.remat=True` or `--config.pretrain.accumulate=N` processes the same batch in less memory;
with `accumulate`, the BatchNorm layers of the stem see one micro-batch at a time.

Cost: 348 GFLOP per image (all 10 views, forward and backward), 1.4e20 FLOP for 100 epochs of CION-AL: three times
ResNet50-IBN, which took the authors about 5 days on 8 V100 GPUs.

Expected: mAP / Rank-1 of 93.1 / 96.9 on Market-1501 and 72.6 / 88.5 on MSMT17, after fine-tuning with TransReID at
256x128. Not yet trained with this code.
"""

from ml_collections import ConfigDict

from cion_jax.configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model = "vit_base"
    return config
