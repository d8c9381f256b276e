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

Expected scores (Tables 2 and 6): `cion_jax.pipeline.experiments.paper`. Not yet trained with this code.
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
