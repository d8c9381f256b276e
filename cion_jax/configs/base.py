"""Every setting of every stage, with the paper's values. Other configs start from this one.

A setting is overridden on the command line as --config.pretrain.batch_size=256; a name that does not exist is
refused with the nearest one that does.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    # What `cion_jax.main` runs, in this order: ingest, street, extractor, extract, correlate, pretrain, evaluate,
    # export.
    config.stages = ("pretrain", "export")
    config.model = "vit_base"

    # Videos that the ingest stage cuts crops out of, which take the place of `data`: see `cion_jax.samples.ingest`.
    config.ingest = ConfigDict()
    config.ingest.videos = placeholder(str)  # a folder
    config.ingest.tracks = placeholder(str)  # a folder of MOTChallenge files, <video>.txt, instead of detection
    config.ingest.detector = "people"  # "motion" suits fixed cameras; or the path of an ONNX file
    config.ingest.person_class = 0
    config.ingest.detect_every = 1
    config.ingest.blur_faces = False
    config.ingest.crops = ConfigDict(dict(every=5, min_height=64, min_crops=2))

    # Person crops. `samples` is a sample table, or CION-AL / SYNTH-PEDES annotations; with the correlate stage it
    # needs video and tracklet, without it an identity column.
    config.data = ConfigDict()
    config.data.samples = placeholder(str)
    config.data.images = placeholder(str)

    # The feature extractor of identity correlation (paper: ViT-Base trained on UFine6926): given as weights, or
    # trained by the extractor stage on labelled crops.
    config.extractor = ConfigDict()
    config.extractor.model = "vit_base"
    config.extractor.weights = placeholder(str)
    config.extractor.size = (256, 128)
    config.extractor.batch_size = 64
    config.extractor.training = ConfigDict(
        dict(
            steps=20000,
            batch_size=128,
            images_per_identity=4,
            learning_rate=2e-3,
            weight_decay=0.05,
            temperature=0.1,
            canvas=(256, 128),
            views=dict(
                global_scale=(0.6, 1.0),
                jitter=0.5,
                brightness=0.3,
                contrast=0.2,
                saturation=0.2,
                hue=0.02,
                grayscale=0.0,
                blur=(0.2, 0.2, 0.0),
                blur_sigma=(0.1, 1.0),
            ),
        )
    )

    # Sec. 3.1-3.2.
    config.correlate = ConfigDict()
    config.correlate.sigma_cst = 0.2
    config.correlate.sigma_drm = 0.18
    config.correlate.half_width = 1000  # -1: every pair
    config.correlate.levels = 3

    # Sec. 3.3, Table 5 and DINO's defaults.
    config.pretrain = pretrain = ConfigDict()
    # What counts as one identity, each trained in turn: "identity" (the column, or what correlation found),
    # "tracklet" (Fig. 1b), "image" (Fig. 1a: DINO), "person" (the truth, where the table has it).
    pretrain.group_by = ("identity",)
    pretrain.data_ratio = 1.0  # share of the identities that is used (Fig. 6)
    pretrain.init = placeholder(str)  # ImageNet weights to start from, as `cion_jax.convert --init` reads them
    pretrain.batch_size = 960  # images of a global batch, over all devices and processes
    pretrain.epochs = 100
    pretrain.curriculum = ConfigDict()
    pretrain.curriculum.stage_epochs = (0, 40, 60, 80)
    pretrain.curriculum.images_per_identity = (2, 4, 6, 8)
    pretrain.compute_dtype = "bfloat16"  # parameters, statistics and loss stay float32
    # What to do when a batch does not fit a device's memory. `remat` keeps the results of convolutions and matrix
    # products only and computes what lies between them again. `accumulate` goes through a device's images in so many
    # micro-batches, whose gradients are averaged: the same step, but BatchNorm sees a micro-batch at a time.
    pretrain.remat = False
    pretrain.accumulate = 1
    pretrain.canvas = (256, 128)  # larger images are shrunk to fit it when they are read
    pretrain.loader_threads = 8
    pretrain.log_every = 50
    pretrain.head = ConfigDict(dict(prototypes=65536, hidden_dim=2048, bottleneck_dim=256, batch_norm=False))
    pretrain.loss = ConfigDict(
        dict(form="paper", student_temperature=0.1, teacher_temperature=0.04, center_momentum=0.9)
    )
    # update_every: "step", or "epoch" to keep the teacher as it is over an epoch.
    pretrain.teacher = ConfigDict(dict(momentum=0.996, momentum_end=1.0, update_every="step"))
    pretrain.optimizer = ConfigDict(
        dict(
            learning_rate=5e-4,  # for 256 images; scaled linearly with the batch size
            min_learning_rate=1e-6,
            warmup_epochs=10.0,
            weight_decay=0.04,
            weight_decay_end=0.4,
            clip_norm=3.0,  # per parameter tensor
            freeze_last_layer_epochs=1.0,
        )
    )
    # Augmentation of views; see `cion_jax.distillation.augmentation.Augmentation`.
    pretrain.views = ConfigDict(
        dict(
            global_size=(256, 128),
            local_size=(128, 64),
            local_views=8,
            global_scale=(0.8, 1.0),
            local_scale=(0.05, 0.8),
            blur_sigma=(0.1, 2.0),  # in pixels
        )
    )
    # Steps between checkpoints; the last `keep` stay, and those of every `keep_every`-th step (0: none of these).
    pretrain.checkpoint = ConfigDict(dict(every_steps=1000, keep=3, keep_every=50_000))
    pretrain.allow_changed_data = False  # continue a run on other samples than it was started on

    # Market-1501 layout; the evaluate stage is run if a root is given.
    config.evaluate = ConfigDict()
    config.evaluate.root = placeholder(str)
    config.evaluate.size = (256, 128)
    config.evaluate.batch_size = 64
    return config
