"""Fine-tuning of a ResNet with MGN as in the paper: --config=configs/finetune/mgn.py:<data set>/<model>

    python -m cion_jax.finetune --config=configs/finetune/mgn.py:market1501/resnet50_ibn --workdir=W \
        --config.weights=ResNet50_IBN.pth --config.data.root=DIR

The recipe is that of the released FastReID configs (Sec. 4.1): Adam for 60 epochs, of which the ResNet is
frozen for 10, 384x128, circle softmax on eight heads and soft-margin triplet loss on five embeddings, 16 images of each
of 4 identities. The models are resnet50, resnet101 and resnet152, with and without IBN. Deviations: bfloat16 instead of
float32; statistics of BatchNorm are of the whole batch instead of one GPU's; an epoch has as many batches as the groups
of 16 images fill, instead of images / 64.

Expected scores (Tables 1 and 4), resnet50_ibn: mAP 93.3, Rank-1 97.3 on Market-1501; 74.3, 89.8 on MSMT17. Not yet
trained with this code.
"""

from ml_collections import ConfigDict

from cion_jax.configs.finetune import common, parts_of
from cion_jax.samples import IMAGENET_MEAN, IMAGENET_STD


def get_config(recipe: str = "market1501/resnet50_ibn") -> ConfigDict:
    """The config of `<data set>/<model>`."""
    config = common(*parts_of(recipe, "resnet*"))
    config.method = "mgn"
    config.canvas = (384, 128)
    config.mgn = _mgn()
    return config


def _mgn() -> ConfigDict:
    config = ConfigDict()
    config.epochs = 60
    config.batch_size = 64  # global batch: images per step over all devices and processes
    config.images_per_identity = 16
    config.size = (384, 128)
    config.mean, config.std = IMAGENET_MEAN, IMAGENET_STD
    config.smoothing = 0.1  # of the labels; -1: by the confidence in the label
    config.optimizer = ConfigDict(
        dict(
            learning_rate=3.5e-4,
            weight_decay=5e-4,  # of every parameter, added to its gradient
            warmup_epochs=10,
            constant_until_epoch=30,  # then half a cosine to the end
            frozen_epochs=10,  # of the shared stages and the branches; heads are trained
            extra_frozen_steps=1,  # the released code compares with <=, and freezes one step more
        )
    )
    config.augmentation = ConfigDict(dict(flip=0.5, pad=10))
    black = tuple(-mean / std for mean, std in zip(config.mean, config.std))
    config.augmentation.erasing = ConfigDict(
        dict(probability=0.5, area=(0.02, 0.4), aspect=(0.3, 3.33), log_aspect=False, attempts=100, fill=black)
    )
    return config
