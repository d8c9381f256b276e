"""The whole method on rendered people, in about ten minutes on two CPU cores. No data needed.

    python -m cion_jax.main --config=configs/demo.py --workdir=runs/demo

Everything is small: 128x64 crops resized to 64x32, a ResNet with 0.7 M parameters, a few hundred steps. The method and
its thresholds are the paper's. The other settings were tuned on streets with other seeds than the one shown.
"""

from ml_collections import ConfigDict

from cion_jax.configs import base, finetune, finetune_mgn
from cion_jax.samples import IMAGENET_MEAN, IMAGENET_STD


def get_config() -> ConfigDict:
    config = base.get_config()
    config.stages = ("street", "extractor", "extract", "correlate", "pretrain", "evaluate", "export")
    config.model = "resnet_test"
    # Fields of `cion_jax.street.StreetConfig`; more people and videos make a larger street.
    config.street = ConfigDict(
        dict(
            seed=0,
            labelled_people=300,
            crawl_people=140,
            crawl_videos=40,
            people_per_video=16,
            benchmark_people=100,
            benchmark_distractors=100,
            benchmark_junk=50,
            camera_strength=0.4,
            occlusion=0.3,
            background=0.05,
            switch_rate=0.1,
        )
    )

    config.extractor.model = "resnet_test"
    config.extractor.size = (64, 32)
    config.extractor.batch_size = 256
    config.extractor.training.update(dict(steps=600, batch_size=64, temperature=0.15, canvas=(128, 64)))

    pretrain = config.pretrain
    pretrain.group_by = ("tracklet", "identity")
    pretrain.batch_size = 64
    pretrain.epochs = 3
    pretrain.curriculum.stage_epochs = (0,)
    pretrain.curriculum.images_per_identity = (2,)
    pretrain.compute_dtype = "float32"
    pretrain.canvas = (128, 64)
    pretrain.loader_threads = 2
    pretrain.log_every = 10
    # Small batches need batch normalisation in the head, a faster teacher, and a blur scaled to the small views.
    pretrain.head.update(dict(prototypes=1024, hidden_dim=256, bottleneck_dim=64, batch_norm=True))
    pretrain.teacher.update(dict(momentum=0.97, momentum_end=0.99))
    pretrain.optimizer.update(dict(learning_rate=4e-3, warmup_epochs=0.3, freeze_last_layer_epochs=0.0))
    pretrain.moco.update(dict(queue=4096, momentum=0.99, learning_rate=1.0))
    pretrain.views.update(dict(global_size=(64, 32), local_views=0, blur_sigma=(0.1, 1.0)))
    pretrain.checkpoint.every_steps = 100

    config.evaluate.size = (64, 32)
    config.evaluate.batch_size = 256
    return config


def finetuning(method: str) -> ConfigDict:
    """Fine-tuning of the demo's networks on a fifth of the street's labelled people, for `cion_jax.experiments`."""
    of_method = {"supervised": finetune, "mgn": finetune_mgn}[method]
    config = of_method.get_config("market1501/resnet_test")
    config.data.identities_ratio = 0.2
    config.compute_dtype, config.canvas, config.loader_threads, config.log_every = "float32", (128, 64), 2, 10
    config.checkpoint.every_steps = 100
    settings = config[method]
    settings.update(epochs=5, batch_size=64, images_per_identity=4)
    settings.mean, settings.std, settings.augmentation.pad = IMAGENET_MEAN, IMAGENET_STD, 4
    if method == "supervised":
        settings.size = (64, 32)
        settings.optimizer.update(learning_rate=0.02, warmup_epochs=1)
    else:
        settings.size = (96, 32)
        settings.optimizer.update(warmup_epochs=1, constant_until_epoch=3, frozen_epochs=2, learning_rate=1e-3)
    return config
