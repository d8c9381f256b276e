"""Training of the feature extractor of identity correlation on labelled identities, and reading it back.

The paper uses a ViT-Base trained on UFine6926 and says no more. Here: a BNNeck on any backbone, trained with the losses
of `cion_jax.finetuning.contrastive`. The thresholds 0.2 / 0.18 are distances in this extractor's space: the temperature
0.1 sets its scale.
"""

import os
import shutil
from pathlib import Path

from flax import nnx
from ml_collections import ConfigDict

from cion_jax.configs.finetune import settings_of_run
from cion_jax.conversion import load_with_provenance, write_weights
from cion_jax.conversion.weights import read_weights
from cion_jax.finetuning.contrastive import Contrastive, ContrastiveNetwork
from cion_jax.finetuning.data import Samples
from cion_jax.finetuning.train import train
from cion_jax.models import create_model
from cion_jax.models.backbone import Backbone
from cion_jax.models.neck import BNNeck
from cion_jax.runtime.config import Config
from cion_jax.samples import SampleTable


def create_extractor(name: str, seed: int = 0) -> BNNeck:
    """A newly initialised backbone with a BNNeck."""
    return BNNeck(create_model(name, rngs=nnx.Rngs(seed)))


def load_extractor(name: str, weights: str | os.PathLike) -> tuple[Backbone, dict[str, str]]:
    """A backbone, with a BNNeck if the weights have one, and the provenance of the weights."""
    has_neck = any(key.startswith("bottleneck.") for key in read_weights(weights)[0])
    model = create_extractor(name) if has_neck else create_model(name)
    return model, load_with_provenance(model, weights)


def train_extractor(config: Config, table: SampleTable, images: Path, out: Path) -> None:
    """Trains `config.extractor.model` on the identities of `table` and writes its weights to `out` (`.pth`).

    Metrics and checkpoints are in the folder `<out>.training`. A call that was stopped is continued by the next one;
    once the weights are written, the checkpoints are removed.

    Args:
        config: a file of configs/; `config.extractor` and `config.seed` are used.
        table: labelled crops with an `identity` column, of two identities or more.
        images: folder that `file_path` is relative to.
        out: `.pth` to write; `load_weights` reads it into a `create_extractor`.

    Raises:
        ValueError: data that the extractor cannot be trained on, a batch that devices cannot share, or divergence.
        Terminated: SIGTERM or Ctrl-C came; the state is saved, and calling this again continues.
    """
    run = _run_config(config)
    folder = out.with_name(f"{out.name}.training")
    method = Contrastive(run.contrastive)
    network = train(run, Samples(table, images), folder, method=method)
    assert isinstance(network, ContrastiveNetwork)
    write_weights(network.model, out)
    shutil.rmtree(folder / "checkpoints")


def _run_config(config: Config) -> Config:
    """The config of the training run, from `config.extractor`."""
    run, settings = settings_of_run(config.extractor.model), config.extractor.training
    run.method, run.seed, run.from_scratch = "contrastive", config.seed, True
    run.compute_dtype, run.canvas, run.log_every = "float32", tuple(settings.canvas), 20
    run.contrastive = ConfigDict(settings.to_dict() | {"size": tuple(config.extractor.size)})
    return run
