"""Fine-tuning as in the paper, for any model and data set: --config=configs/finetune/supervised.py:<data>/<model>

    python -m cion_jax.finetune --config=configs/finetune/supervised.py:msmt17/resnet50_ibn --workdir=W \
        --config.weights=ResNet50_IBN.pth --config.data.root=DIR

The recipe is that of the released TransReID configs (Sec. 4.1): SGD for 120 epochs with 20 of warm-up, 256x128,
identity loss on the BNNeck and soft-margin triplet loss, four images of each identity. Learning rate and batch size
depend on model and data set (`RECIPES`). Deviations: bfloat16 instead of mixed float16 with loss scaling; test images
are resized as everywhere in this package.

Expected scores: `cion_jax.models.model_info(model)` has those of Tables 1 and 3. Not yet trained with this code.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from cion_jax.models import list_models

DATASETS = ("market1501", "msmt17")
_RATE_OF_64 = 4e-4  # learning rate for a batch of 64; scaled linearly with the batch


def _scaled(*batches: int) -> tuple[tuple[int, float], ...]:
    return tuple((batch, _RATE_OF_64 * batch / 64) for batch in batches)


# Batch size and learning rate on Market-1501 and on MSMT17, by model.
RECIPES = {
    "ghostnet_0_5": _scaled(32, 32),
    "ghostnet_1_0": _scaled(64, 64),
    "ghostnet_1_3": _scaled(64, 64),
    "edgenext_x_small": _scaled(64, 32),
    "edgenext_small": _scaled(256, 64),
    "edgenext_base": _scaled(64, 64),
    "repvit_m0_9": _scaled(128, 64),
    "repvit_m1_0": _scaled(256, 64),
    "repvit_m1_5": _scaled(64, 64),
    "fastvit_s12": _scaled(64, 64),
    "fastvit_sa12": _scaled(64, 64),
    "fastvit_sa24": _scaled(64, 64),
    "resnet18": _scaled(256, 32),
    "resnet50": _scaled(512, 64),
    "resnet101": _scaled(128, 128),
    "resnet152": _scaled(128, 128),
    "resnet18_ibn": _scaled(256, 32),
    "resnet50_ibn": _scaled(512, 64),
    "resnet101_ibn": _scaled(64, 128),
    "resnet152_ibn": _scaled(128, 128),
    "convnext_tiny": _scaled(64, 64),
    "convnext_small": _scaled(256, 256),
    "convnext_base": ((120, 8e-4), (256, 16e-4)),
    "volo_d1": _scaled(256, 128),
    "volo_d2": _scaled(256, 64),
    "volo_d3": _scaled(128, 64),
    "vit_tiny": _scaled(512, 512),
    "vit_small": _scaled(512, 512),
    "vit_base": _scaled(384, 384),
    "swin_tiny": _scaled(64, 64),
    "swin_small": _scaled(64, 64),
    "swin_base": ((64, 4e-4), (64, 2e-4)),
}


def get_config(recipe: str = "market1501/vit_base") -> ConfigDict:
    """The config of `<data set>/<model>`."""
    dataset, model = parts_of(recipe)
    config = common(dataset, model)
    batch_size, rate = RECIPES.get(model, _scaled(64, 64))[DATASETS.index(dataset)]
    config.supervised = _supervised(batch_size, rate)
    if recipe == "market1501/ghostnet_0_5":
        config.supervised.optimizer.warmup_epochs = 40
    return config


def parts_of(recipe: str, models: str = "*") -> tuple[str, str]:
    """Data set and model of `<data set>/<model>`; `models` is the pattern of those that the method takes.

    Raises:
        ValueError: an unknown data set, or another model.
    """
    dataset, _, model = recipe.partition("/")
    if dataset not in DATASETS or model not in list_models(models):
        raise ValueError(
            f"the config {recipe!r}: expected <data set>/<model>, with a data set of {', '.join(DATASETS)} and a model "
            f"of list_models({models!r})"
        )
    return dataset, model


def common(dataset: str, model: str) -> ConfigDict:
    """Settings of all methods."""
    config = settings_of_run(model)
    # Training images: a data set in `root`, or a sample table with the column `identity` (and `camera`, if known).
    config.data = ConfigDict()
    config.data.dataset = dataset
    config.data.root = placeholder(str)
    config.data.split = placeholder(str)  # MSMT17 only: "train+val", as in the paper, or "train"
    if dataset == "msmt17":
        config.data.split = "train+val"
    config.data.samples = placeholder(str)
    config.data.images = placeholder(str)
    config.data.identities_ratio = 1.0  # fraction of the identities to train on
    return config


def settings_of_run(model: str) -> ConfigDict:
    """Settings of all methods, but for the data."""
    config = ConfigDict()
    config.seed = 0
    config.method = "supervised"  # one of `cion_jax.finetuning.methods`; its settings are the group of that name
    config.model = model
    # The start: a ReIDZoo .pth, the checkpoints folder of a pre-training run, or a fine-tuned network's .pth (for
    # domain adaptation); or ImageNet weights, as `cion_jax.convert --init` reads them; or neither.
    config.weights = placeholder(str)
    config.init = placeholder(str)
    config.from_scratch = False  # must be set to train without a start

    config.compute_dtype = "bfloat16"  # parameters, statistics and losses stay float32
    config.canvas = (256, 128)  # larger images are shrunk to this size when read
    config.skip_damaged = False  # replace JPEGs that are damaged inside, as images that cannot be decoded are
    config.loader_threads = 8
    config.log_every = 50
    config.checkpoint = ConfigDict(dict(every_steps=1000, keep=2, keep_every=0))
    config.allow_changed_data = False  # resume even if the samples differ from those the run started on

    # Scores on a benchmark: by default that of `data`; without a data set root, none.
    config.evaluate = ConfigDict()
    config.evaluate.dataset = placeholder(str)
    config.evaluate.root = placeholder(str)
    config.evaluate.every_epochs = 0  # 0: after the last epoch only; else the best epoch's network is kept too
    config.evaluate.batch_size = 256
    config.evaluate.rerank = False
    return config


def _supervised(batch_size: int, learning_rate: float) -> ConfigDict:
    config = ConfigDict()
    config.epochs = 120
    config.batch_size = batch_size  # global batch: images per step over all devices and processes
    config.images_per_identity = 4
    config.size = (256, 128)
    config.mean = config.std = (0.5, 0.5, 0.5)  # pre-training used ImageNet's
    config.test_feature = "before"  # or "after" the neck
    # Resample the position table of a ViT in every forward pass, by a scale of 16.1 / 16, as the released fine-tuning
    # does by mistake. ViTs that it has fine-tuned need it; pre-training does not do it.
    config.resample_positions = False
    config.optimizer = ConfigDict(
        dict(
            name="sgd",  # or "adamw"
            learning_rate=learning_rate,
            momentum=0.9,
            weight_decay=1e-4,
            weight_decay_bias=1e-4,
            bias_factor=2.0,  # of the learning rate
            large_classifier_rate=False,  # twice the learning rate for the classifier
            warmup_epochs=20,
        )
    )
    # Weights of the losses, and their forms.
    config.loss = ConfigDict(dict(identity=1.0, triplet=1.0, center=0.0, smoothing=0.0, normalise=False))
    config.loss.margin = placeholder(float)  # of the triplet loss; None is the soft margin
    config.augmentation = ConfigDict(dict(flip=0.5, pad=10))
    config.augmentation.erasing = ConfigDict(
        dict(probability=0.5, area=(0.02, 1 / 3), aspect=(0.3, 1 / 0.3), log_aspect=True, attempts=10)
    )
    # None: noise; else the value of each channel after normalisation.
    config.augmentation.erasing.fill = FieldReference(None, field_type=tuple)
    return config
