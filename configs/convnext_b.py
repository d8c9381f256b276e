"""ConvNeXt-Base: ReIDZoo's `ConvNext_Base`.

    python -m cion_jax.main --config=configs/convnext_b.py --workdir=runs/convnext_b \
        --config.data.samples=cional_annos.json --config.data.images=CION_AL

Data: CION-AL, 3,898,086 images of 246,904 identities.

Batch and views: Table 5 of the paper gives every model its own batch size and number of local views, as many as 8
V100 GPUs of 32 GB hold. Its row for ConvNeXt-Base is not copied here: this config keeps ResNet50-IBN's batch of 960
with 2 global + 8 local views. Compiled for 8 GPUs with 120 images each, a step needs 57 GiB per GPU besides the state
(ResNet50-IBN: 14, ViT-Base: 33), so on smaller GPUs set what fits, or Table 5's values:

    --config.pretrain.batch_size=B --config.pretrain.views.local_views=V

B / devices must be a multiple of 24 (2, 4, 6 and 8 images per identity), and the learning rate scales with B.
`--config.pretrain.accumulate=N` or `--config.pretrain.remat=True` processes the same batch in less memory. ConvNeXt has
no BatchNorm, so neither changes the step.

Cost: 283 GFLOP per image (all 10 views, forward and backward), 1.1e20 FLOP for 100 epochs of CION-AL: 2.4 times
ResNet50-IBN, which took the authors about 5 days on 8 V100 GPUs.

Expected: mAP / Rank-1 of 93.4 / 96.9 on Market-1501 and 72.7 / 89.0 on MSMT17, after fine-tuning with TransReID at
256x128. Not yet trained with this code.
"""

from ml_collections import ConfigDict

from cion_jax.configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model = "convnext_base"
    return config
