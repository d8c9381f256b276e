"""All settings of all stages, with the paper's values. Other configs start from this one.

Override a setting on the command line, for example with --config.pretrain.batch_size=256. An unknown name is an error
that suggests the closest known one.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    # The stages that `cion_jax.main` runs, always in this order: ingest, street, extractor, rounds, extract, adapt,
    # calibrate, correlate, pretrain, evaluate, export.
    config.stages = ("pretrain", "export")
    config.model = "vit_base"

    # Videos from which the ingest stage crops people; they replace `data`. See `cion_jax.samples.ingest`.
    config.ingest = ConfigDict()
    config.ingest.videos = placeholder(str)  # folder of video files
    config.ingest.tracks = placeholder(str)  # folder of MOTChallenge files, <video>.txt; replaces detection
    config.ingest.classes = placeholder(tuple)  # classes of people in these files, such as (1,), if they have classes
    config.ingest.first_frame = 1  # number of the first frame in them, 0 or 1
    config.ingest.detector = "people"  # or "motion" for fixed cameras, or the path of an ONNX detector
    config.ingest.person_class = 0
    config.ingest.detect_every = 1
    config.ingest.blur_faces = False
    config.ingest.crops = ConfigDict(dict(every=5, min_height=64, min_crops=2))

    # Person crops. `samples` is a sample table, or CION-AL / SYNTH-PEDES annotations. It needs the columns video and
    # tracklet if the correlate stage runs, and the column identity if it does not.
    config.data = ConfigDict()
    config.data.samples = placeholder(str)
    config.data.images = placeholder(str)

    # The feature extractor for identity correlation (paper: ViT-Base trained on UFine6926): either existing weights
    # or, with the extractor stage, trained on labelled crops.
    config.extractor = ConfigDict()
    config.extractor.model = "vit_base"
    config.extractor.weights = placeholder(str)
    # What the extractor stage trains on: a sample table of images in `data.images`, by default the street's labelled
    # crops, and the column that defines an identity, as for `pretrain.group_by`.
    config.extractor.labelled = placeholder(str)
    config.extractor.group_by = "identity"
    config.extractor.size = (256, 128)
    config.extractor.batch_size = 64
    config.extractor.precision = "auto"  # features are computed in bfloat16 on GPUs and in float32 elsewhere
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

    # Rounds that find identities without labels, in place of extractor, extract and correlate. A round extracts,
    # adapts, calibrates and correlates; the next round's network is trained on its identities (docs/bootstrap.md).
    config.rounds = ConfigDict()
    # Round 0's network: trained on every "tracklet" or, by distillation only, every "image" as an identity; or a file
    # of weights of `model`.
    config.rounds.start = "tracklet"
    config.rounds.train = "contrastive"  # as the extractor is; or "distillation", as in pre-training
    config.rounds.limit = 4  # most rounds
    # Rounds have settled when the adjusted Rand index with the previous one is at least `agreement`, and the number of
    # identities and n_S change by at most the share `change`.
    config.rounds.agreement = 0.9
    config.rounds.change = 0.05

    # The adapt stage centers features by video and whitens them. The calibrate stage then proposes sigma_cst and
    # sigma_drm, which replace those of `correlate`: the largest at which a group gets, on average, `false_links` links
    # to other people.
    config.calibrate = ConfigDict(dict(false_links=0.1))

    # Identity correlation, Sec. 3.1-3.2.
    config.correlate = ConfigDict()
    config.correlate.sigma_cst = 0.2
    config.correlate.sigma_drm = 0.18
    # r_s, the half-width of the Sliding Range (Eq. 7), or "all" to compare every pair: hence an int or a str.
    config.correlate.half_width = FieldReference(1000, field_type=object)
    config.correlate.levels = 3
    config.correlate.rule = "closure"  # how links become identities, see `cion_jax.correlation.rules`
    config.correlate.drop_background = False  # discard identities that show no person

    # Identity-guided self-distillation, Sec. 3.3; where the paper gives no value, DINO's default.
    config.pretrain = pretrain = ConfigDict()
    # Columns that define an identity; one network is trained for each: "identity" (the column, or the result of
    # correlation), "tracklet" (Fig. 1b), "image" (Fig. 1a: DINO), "person" (ground truth, if the table has it).
    pretrain.group_by = ("identity",)
    # "distillation" (the paper's), or "moco": MoCo v2 with LUP's settings, the other image-level baseline of Table 4.
    pretrain.objective = "distillation"
    pretrain.data_ratio = 1.0  # fraction of the identities to train on (Fig. 6)
    pretrain.init = placeholder(str)  # ImageNet weights to start from, as `cion_jax.convert --init` reads them
    pretrain.batch_size = 960  # global batch: images per step over all devices and processes
    pretrain.epochs = 100
    pretrain.curriculum = ConfigDict()
    pretrain.curriculum.stage_epochs = (0, 40, 60, 80)
    pretrain.curriculum.images_per_identity = (2, 4, 6, 8)
    pretrain.compute_dtype = "bfloat16"  # parameters, statistics and loss stay float32
    # Two ways to save device memory. `remat` stores only the outputs of convolutions and matrix products, and
    # recomputes everything between them in the backward pass. `accumulate` splits a device's images into that many
    # micro-batches and averages their gradients: the same step, except that BatchNorm sees one micro-batch at a time.
    pretrain.remat = False
    pretrain.accumulate = 1
    pretrain.canvas = (256, 128)  # larger images are shrunk to this size when read
    pretrain.skip_damaged = False  # replace JPEGs that are damaged inside, as images that cannot be decoded are
    pretrain.loader_threads = 8
    pretrain.log_every = 50
    pretrain.head = ConfigDict(dict(prototypes=65536, hidden_dim=2048, bottleneck_dim=256, batch_norm=False))
    pretrain.loss = ConfigDict(
        dict(form="paper", student_temperature=0.1, teacher_temperature=0.04, center_momentum=0.9)
    )
    # Settings of objective "moco" (LUP's); its views are set by `cion_jax.configs.ablation` (row `moco`).
    pretrain.moco = ConfigDict(
        dict(
            queue=65536,  # keys; a multiple of the batch size
            dim=128,
            temperature=0.1,
            momentum=0.999,
            learning_rate=0.3,  # for a batch of 2560; scaled linearly with batch_size
            weight_decay=1e-4,
            erased_area=(0.02, 0.6),  # random erasing with probability 0.5; fractions of the image's area
        )
    )
    # EMA teacher. The paper (Sec. 3.3) freezes it over an epoch and updates it once per epoch: update_every="epoch".
    # The default here is an update after every step, as in DINO's code.
    pretrain.teacher = ConfigDict(dict(momentum=0.996, momentum_end=1.0, update_every="step"))
    pretrain.optimizer = ConfigDict(
        dict(
            learning_rate=5e-4,  # for a batch of 256; scaled linearly with batch_size
            min_learning_rate=1e-6,
            warmup_epochs=10.0,
            weight_decay=0.04,
            weight_decay_end=0.4,
            clip_norm=3.0,  # per parameter tensor
            freeze_last_layer_epochs=1.0,
        )
    )
    # Views and their augmentation; see `cion_jax.distillation.augmentation.Augmentation`.
    pretrain.views = ConfigDict(
        dict(
            global_size=(256, 128),
            local_size=(128, 64),
            local_views=8,
            global_scale=(0.8, 1.0),
            local_scale=(0.05, 0.8),
            aspect_ratio=(0.4, 0.6),  # width / height of a crop
            jitter=0.8,  # probability of colour jitter
            grayscale=0.2,  # probabilities
            blur=(1.0, 0.1, 0.5),  # of the first global view, the second, and the local ones
            blur_sigma=(0.1, 2.0),  # in pixels
            solarize=0.2,  # of the second global view
        )
    )
    # A checkpoint every `every_steps` steps. The last `keep` are kept, and also every multiple of `keep_every` steps
    # (0: no such multiples).
    pretrain.checkpoint = ConfigDict(dict(every_steps=1000, keep=3, keep_every=50_000))
    pretrain.allow_changed_data = False  # resume even if the samples differ from those the run started on

    # The benchmark of the evaluate stage, in Market-1501 layout. A root alone does not run the stage: `stages` does.
    config.evaluate = ConfigDict()
    config.evaluate.root = placeholder(str)
    config.evaluate.size = (256, 128)
    config.evaluate.batch_size = 64
    return config
