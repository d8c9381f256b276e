"""Training of the feature extractor of identity correlation on labelled identities.

The paper uses a ViT-Base trained on UFine6926 and says no more. Here: a BNNeck on any backbone, trained with a
supervised contrastive loss (Khosla et al., 2020) and a cosine classifier over the identities. The thresholds
0.2 / 0.18 are distances in this extractor's space: the temperature 0.1 sets its scale.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from cion_jax.conversion import load_with_provenance, write_weights
from cion_jax.conversion.weights import read_weights
from cion_jax.distillation.augmentation import Augmentation, make_views, sample_keys
from cion_jax.distillation.loader import load_batches
from cion_jax.distillation.sampler import IdentitySampler, identity_sizes
from cion_jax.distillation.schedules import Curriculum, make_curriculum
from cion_jax.features.losses import cosine_cross_entropy, supervised_contrastive_loss
from cion_jax.models import create_model
from cion_jax.models.backbone import Backbone
from cion_jax.models.neck import BNNeck
from cion_jax.runtime.config import Config
from cion_jax.runtime.progress import progress
from cion_jax.samples import SampleTable

Tree = Any


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

    Args:
        config: a file of configs/; `config.extractor` and `config.seed` are used.
        table: labelled crops with an `identity` column, at least two images per identity.
        images: folder that `file_path` is relative to.
        out: `.pth` to write; `load_weights` reads it into a `create_extractor`.

    Raises:
        ValueError: the loss diverged.
    """
    settings = config.extractor.training
    classes, labels = np.unique(table["identity"], return_inverse=True)
    sampler = _sampler(table["identity"], settings, config.seed)
    model = create_extractor(config.extractor.model, config.seed)
    proxies = 0.05 * jax.random.normal(jax.random.key(config.seed), (len(classes), model.embed_dim))
    structure, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    rate = optax.warmup_cosine_decay_schedule(0, settings.learning_rate, settings.steps // 10, settings.steps)
    optimizer = optax.adamw(rate, weight_decay=settings.weight_decay)
    params = {"model": nnx.as_pure(params), "proxies": proxies}
    state = (params, nnx.as_pure(stats), optimizer.init(params))
    step = _make_step(structure, optimizer, settings, config.extractor.size, config.seed)
    batches = load_batches(sampler, table["file_path"], images, canvas=tuple(settings.canvas))
    with progress("Training the extractor", settings.steps, "steps") as advance:
        for index in range(settings.steps):
            batch, rows = next(batches), sampler[index].reshape(-1)
            state, loss = step(state, batch.images, batch.sizes, labels[rows], index)
            if index % 20 == 0 or index == settings.steps - 1:
                if not np.isfinite(loss):
                    raise ValueError(f"the extractor's loss is {loss} at step {index}; lower its learning rate")
                advance(0, note=f"loss {float(loss):.3f}")
            advance(1)
    write_weights(nnx.merge(structure, state[0]["model"], state[1]), out)


def _sampler(identities: np.ndarray, settings: Config, seed: int) -> IdentitySampler:
    """A sampler with enough epochs for all steps."""

    def plan(epochs: int) -> Curriculum:
        return make_curriculum(
            identity_sizes(identities),
            batch_size=settings.batch_size,
            epochs=epochs,
            stage_epochs=(0,),
            images_per_identity=(settings.images_per_identity,),
        )

    enough = plan(-(-settings.steps // plan(1).total_steps))
    return IdentitySampler(identities, enough, batch_size=settings.batch_size, seed=seed)


def _make_step(
    structure: nnx.GraphDef, optimizer: optax.GradientTransformation, settings: Config, size: tuple, seed: int
) -> Callable[..., tuple[Tree, jax.Array]]:
    """A jitted `(state, images, sizes, labels, step) -> (state, loss)`; two views of each image form a batch."""
    augmentation = Augmentation(**settings.views, global_size=tuple(size), local_views=0, solarize=0.0)

    def loss_of(params: Tree, stats: Tree, views: jax.Array, labels: jax.Array) -> tuple[jax.Array, Tree]:
        model = nnx.merge(structure, params["model"], stats, copy=True)
        embeddings = model(views.reshape(-1, *views.shape[2:]))
        labels = jnp.tile(labels, len(views))
        loss = supervised_contrastive_loss(embeddings, labels, settings.temperature)
        loss += cosine_cross_entropy(embeddings, params["proxies"], labels)
        return loss, nnx.as_pure(nnx.state(model, nnx.BatchStat))

    @jax.jit
    def step(state: Tree, images: jax.Array, sizes: jax.Array, labels: jax.Array, index: jax.Array):
        params, stats, optimizer_state = state
        views, _ = make_views(images, sizes, sample_keys(seed, index, jnp.arange(len(images))), augmentation)
        (loss, stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(params, stats, views, labels)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
        return (optax.apply_updates(params, updates), stats, optimizer_state), loss

    return step
