"""A training run that takes seconds, as a config file and as data: 48 crops of 8 identities."""

import numpy as np
from PIL import Image

from cion_jax.configs import base
from cion_jax.samples import SampleTable, write_samples

IDENTITIES = np.repeat(np.arange(8), 6)


def get_config():
    """Nine steps: two epochs of K=1, one of K=2, three batches of 16 in each."""
    config = base.get_config()
    config.model = "resnet_test"
    settings = config.pretrain
    settings.update(batch_size=16, epochs=3, compute_dtype="float32", canvas=(40, 20), log_every=1, loader_threads=1)
    settings.curriculum.update(stage_epochs=(0, 2), images_per_identity=(1, 2))
    settings.head.update(prototypes=32, hidden_dim=16, bottleneck_dim=8)
    settings.optimizer.warmup_epochs = 1
    settings.views.update(global_size=(32, 16), local_size=(16, 16), local_views=0)
    settings.checkpoint.every_steps = 2
    return config


def write_crops(folder):
    """The crops, each a colour of its identity with noise, and their table `crops.parquet` beside the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for row, identity in enumerate(IDENTITIES):
        color = 40 + 25 * np.asarray([identity % 2, identity // 2 % 2, identity // 4]) + rng.normal(0, 20, (40, 20, 3))
        Image.fromarray(np.clip(color, 0, 255).astype(np.uint8)).save(folder / f"{row:02d}.jpg")
    table = table_of(folder)
    write_samples(table, folder.parent / "crops.parquet")
    return table


def table_of(folder):
    return SampleTable.from_columns(file_path=sorted(p.name for p in folder.iterdir()), identity=IDENTITIES)


def arguments(folder, workdir, *, module=("-m", "cion_jax.pretrain"), **settings):
    """The command line that trains on `folder` in `workdir`; `settings` are those of `config.pretrain`."""
    given = [f"--config.pretrain.{name.replace('__', '.')}={value}" for name, value in settings.items()]
    data = [f"--config.data.samples={folder.parent / 'crops.parquet'}", f"--config.data.images={folder}"]
    return [*module, "--config=tests/tiny.py", f"--workdir={workdir}", *data, *given]
