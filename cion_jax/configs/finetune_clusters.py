"""Unsupervised fine-tuning with Cluster-Contrast as in the paper: --config=configs/finetune/usl.py:<data set>/<model>

    python -m cion_jax.finetune --config=configs/finetune/usl.py:market1501/resnet50_ibn --workdir=W \
        --config.weights=ResNet50_IBN.pth --config.data.root=DIR

    python -m cion_jax.finetune --config=configs/finetune/uda.py:market1501/resnet50_ibn --workdir=W \
        --config.weights=MSMT17_RUN/last.pth --config.data.root=DIR

USL starts from pre-trained weights, domain adaptation (UDA) from those of supervised fine-tuning on the other data set;
all else is the same. Identities of the training images are not used, except to score the clusters. The recipe is that
of the released scripts (Sec. 4.1): 50 epochs of 200 steps, SGD, 256x128, hard cluster memory. The
released code has resnet50, resnet101 and resnet152, with and without IBN; ViTs are as the paper reports them, with the
same settings, which are not published. Deviations: bfloat16 instead of float32 in training; statistics of BatchNorm are
of the whole batch instead of one GPU's.

Expected mAP / Rank-1 (Tables 2 and 6). Not yet trained with this code.

| model | UDA to Market-1501 | UDA to MSMT17 | USL on Market-1501 | USL on MSMT17 |
| --- | --- | --- | --- | --- |
| resnet50 | 90.6 / 96.1 | 57.4 / 81.3 | 90.6 / 95.7 | 52.5 / 78.3 |
| resnet101 | 93.1 / 96.8 | 67.6 / 86.9 | 93.2 / 97.0 | 64.2 / 85.2 |
| resnet152 | 93.6 / 97.0 | 70.1 / 88.1 | 93.3 / 97.1 | 68.8 / 87.6 |
| resnet50_ibn | 92.1 / 96.5 | 62.7 / 84.3 | 91.4 / 96.1 | 59.4 / 82.4 |
| resnet101_ibn | 93.7 / 96.8 | 70.9 / 88.2 | 93.8 / 96.7 | 69.7 / 88.2 |
| resnet152_ibn | 94.0 / 97.1 | 73.7 / 89.2 | 94.3 / 97.1 | 71.7 / 89.0 |
| vit_tiny | 88.0 / 94.7 | 44.3 / 69.3 | 88.3 / 94.5 | 43.1 / 69.6 |
| vit_small | 90.4 / 95.6 | 58.0 / 79.9 | 90.6 / 95.6 | 55.0 / 78.4 |
| vit_base | 91.1 / 95.9 | 61.4 / 82.9 | 91.2 / 96.1 | 58.9 / 82.3 |
"""

from ml_collections import ConfigDict

from cion_jax.configs.finetune import common, parts_of

EPS = {"market1501": 0.6, "msmt17": 0.7}


def get_config(recipe: str = "market1501/resnet50_ibn") -> ConfigDict:
    """The config of `<data set>/<model>`, for USL and UDA."""
    dataset, model = parts_of(recipe)
    config = common(dataset, model)
    config.method = "cluster_contrast"
    config.checkpoint.every_steps = 200
    config.evaluate.every_epochs = 10
    config.cluster_contrast = _cluster_contrast(EPS[dataset])
    return config


def _cluster_contrast(eps: float) -> ConfigDict:
    config = ConfigDict()
    config.epochs = 50
    config.steps_per_epoch = 200
    config.batch_size = 256  # global batch: images per step over all devices and processes
    config.images_per_cluster = 8
    config.extract_batch_size = 256
    config.size = (256, 128)
    config.mean = config.std = (0.5, 0.5, 0.5)  # pre-training used ImageNet's
    # Start from a ViT that the released fine-tuning trained: see `cion_jax/configs/finetune.py`.
    config.resample_positions = False
    config.clustering = ConfigDict(dict(k1=30, k2=6, eps=eps, min_samples=4))
    # Momentum: share of the old centroid. Hard: only the least similar of a cluster's images in a batch counts.
    config.memory = ConfigDict(dict(temperature=0.05, momentum=0.2, hard=True))
    config.optimizer = ConfigDict(
        dict(learning_rate=3.5e-4, momentum=0.9, weight_decay=5e-4, decay_every_epochs=20, decay_factor=0.1)
    )
    config.augmentation = ConfigDict(dict(flip=0.5, pad=10))
    # The fill is ImageNet's mean, though after normalisation, as in the released code.
    config.augmentation.erasing = ConfigDict(
        dict(probability=0.5, area=(0.02, 0.4), aspect=(0.3, 3.33), log_aspect=False, attempts=100)
    )
    config.augmentation.erasing.fill = (0.485, 0.456, 0.406)
    return config
