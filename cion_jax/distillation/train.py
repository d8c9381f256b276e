"""The training run: curriculum, batches, steps, checkpoints. Everything is a function of (config, data, step)."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from cion_jax.conversion import write_weights
from cion_jax.conversion.imagenet import initialise
from cion_jax.distillation.augmentation import Augmentation, make_views, sample_keys
from cion_jax.distillation.head import Head
from cion_jax.distillation.loader import Batch, load_batches
from cion_jax.distillation.optimizer import make_optimizer
from cion_jax.distillation.sampler import IdentitySampler, identity_sizes
from cion_jax.distillation.schedules import Curriculum, Schedule, Stage, cosine_schedule, make_curriculum
from cion_jax.distillation.step import LossSettings, Network, TrainState, create_state, make_train_step
from cion_jax.models import create_model
from cion_jax.runtime.checkpoints import Checkpoints
from cion_jax.runtime.config import Config
from cion_jax.runtime.mesh import DATA_AXIS, make_mesh, replicate, shard_batch
from cion_jax.runtime.metrics import MetricsLog
from cion_jax.runtime.progress import console, progress
from cion_jax.samples import SampleTable


def pretrain(config: Config, table: SampleTable, images: Path, workdir: Path) -> None:
    """Trains to the end, continuing from the latest checkpoint in `workdir` if there is one.

    Leaves `workdir/checkpoints` (Orbax), `workdir/metrics.jsonl`, and the backbones of teacher and student as
    ReIDZoo files, `workdir/teacher.pth` and `workdir/student.pth`; `teacher.pth` is written last.

    Args:
      config: `config.pretrain` of a file in configs/, and `config.model`, `config.seed`.
      table: sample table with an `identity` column; rows of identity -1 are not used.
      images: folder that `file_path` is relative to.
      workdir: where the run lives.

    Raises:
      ValueError: settings that can't work, data that differ from those the run was started on, or divergence.
    """
    run = _Run(config, table, images, make_mesh())
    with Checkpoints(workdir / "checkpoints", keep=config.pretrain.checkpoint.keep) as checkpoints:
        state = run.start(checkpoints)
        first_step = int(state.step)
        with MetricsLog(workdir / "metrics.jsonl", first_step=first_step) as log:
            state = run.train(state, checkpoints, log)
    student, teacher = ((state.student, state.student_stats), (state.teacher, state.teacher_stats))
    write_weights(run.network(*student).backbone, workdir / "student.pth", about=run.about("student"))
    write_weights(run.network(*teacher).backbone, workdir / "teacher.pth", about=run.about("teacher"))


def plan(config: Config, identities: Any, *, devices: int) -> Curriculum:
    """The curriculum of a config on a data set with these identities (`[rows]`, -1 = not used)."""
    settings = config.pretrain
    return make_curriculum(
        identity_sizes(identities),
        batch_size=settings.batch_size,
        devices=devices,
        epochs=settings.epochs,
        stage_epochs=settings.curriculum.stage_epochs,
        images_per_identity=settings.curriculum.images_per_identity,
    )


def make_network(config: Config) -> Network:
    """Backbone and head of a config, freshly initialised from its seed or the ImageNet weights it names."""
    rngs = nnx.Rngs(config.seed)
    dtype = jnp.dtype(config.pretrain.compute_dtype)
    backbone = create_model(config.model, dtype=dtype, rngs=rngs)
    if config.pretrain.init is not None:
        console.print(
            f"{config.model} starts from {config.pretrain.init}: {initialise(backbone, config.pretrain.init)}"
        )
    return Network(backbone, Head(backbone.embed_dim, rngs=rngs, **config.pretrain.head))


class _Run:
    """What stays the same over a run."""

    def __init__(self, config: Config, table: SampleTable, images: Path, mesh: Mesh):
        self._settings, self._seed, self._mesh = config.pretrain, config.seed, mesh
        identities = table["identity"]
        if (every := self._settings.teacher.update_every) not in ("step", "epoch"):
            raise ValueError(f"teacher.update_every {every!r} is unknown; choose step or epoch")
        self._plan = plan(config, identities, devices=mesh.size)
        self._sampler = IdentitySampler(identities, self._plan, batch_size=self._settings.batch_size, seed=self._seed)
        self._paths, self._images = table["file_path"], images
        self._meta = {"model": config.model, "config": config.to_json(), "data": fingerprint(table)}
        self._augmentation = Augmentation(**self._settings.views)
        self._optimizer, self._momentum = self._schedule()
        self._structure, self._initial = create_state(make_network(config), self._optimizer)

    def _schedule(self):
        s, total = self._settings, self._plan.total_steps
        peak = s.optimizer.learning_rate * s.batch_size / 256
        rate = cosine_schedule(
            peak, s.optimizer.min_learning_rate, total, self._plan.first_step(s.optimizer.warmup_epochs)
        )
        decay = cosine_schedule(s.optimizer.weight_decay, s.optimizer.weight_decay_end, total)
        optimizer = make_optimizer(
            rate,
            decay,
            clip_norm=s.optimizer.clip_norm,
            freeze_last_layer_steps=self._plan.first_step(s.optimizer.freeze_last_layer_epochs),
        )
        return optimizer, cosine_schedule(s.teacher.momentum, s.teacher.momentum_end, total)

    def network(self, params: Any, stats: Any) -> Network:
        return nnx.merge(self._structure, params, stats)

    def about(self, which: str) -> dict[str, Any]:
        """What the card beside the weights tells of the run."""
        config = json.loads(self._meta["config"])
        return self._meta | {"weights": which, "config": config, "input_size": list(self._settings.views.global_size)}

    def start(self, checkpoints: Checkpoints) -> TrainState:
        """The latest checkpoint, or the initial state."""
        initial = replicate(self._initial, self._mesh)
        if checkpoints.latest_step is None:
            return initial
        saved = checkpoints.meta()
        if saved["data"] != self._meta["data"]:
            raise ValueError(
                f"the samples differ from those this run was started on (fingerprint {self._meta['data'][:12]}, "
                f"expected {saved['data'][:12]}); give the same samples, or another --workdir for a new run"
            )
        console.print(f"Continuing from step {checkpoints.latest_step}.")
        return TrainState(**checkpoints.restore(vars(initial)))

    def train(self, state: TrainState, checkpoints: Checkpoints, log: MetricsLog) -> TrainState:
        step, total = int(state.step), self._plan.total_steps
        settings = self._settings
        batches = self._batches(step)
        watch = _Watch(log, settings.batch_size)
        with progress("Pre-training", total, "steps") as advance:
            advance(step)
            for stage in self._plan.stages:
                step_function = self._step_function(stage)  # compiled when it is first called
                while step < stage.end_step:
                    waiting = time.perf_counter()
                    batch = next(batches)
                    watch.count(batch.replaced, time.perf_counter() - waiting)
                    state, metrics = step_function(state, self._ship(batch))
                    step += 1
                    last = step == total
                    if last or step % settings.log_every == 0 or step % settings.checkpoint.every_steps == 0:
                        advance(0, note=watch.log(step - 1, metrics))
                    if last or step % settings.checkpoint.every_steps == 0:
                        checkpoints.save(step, vars(state), self._meta)
                    advance(1)
        return state

    def _batches(self, first_step: int) -> Iterator[Batch]:
        return load_batches(
            self._sampler,
            self._paths,
            self._images,
            canvas=tuple(self._settings.canvas),
            first_step=first_step,
            threads=self._settings.loader_threads,
        )

    def _ship(self, batch: Batch) -> dict[str, jax.Array]:
        return shard_batch({"images": batch.images, "sizes": batch.sizes}, self._mesh)

    def _teacher_momentum(self, stage: Stage) -> Schedule:
        """Every step, or at the last step of every epoch only: a momentum of one leaves the teacher as it is."""
        if self._settings.teacher.update_every == "step":
            return self._momentum

        def once_an_epoch(step: jax.typing.ArrayLike) -> jax.Array:
            last = (jnp.asarray(step) + 1 - stage.first_step) % stage.steps_per_epoch == 0
            return jnp.where(last, self._momentum(step), 1.0)

        return once_an_epoch

    def _step_function(self, stage: Stage):
        def views(batch: dict[str, jax.Array], step: jax.Array):
            count = batch["images"].shape[0]
            positions = jax.lax.axis_index(DATA_AXIS) * count + jnp.arange(count)
            keys = sample_keys(self._seed, step, positions)
            return make_views(batch["images"], batch["sizes"], keys, self._augmentation)

        return make_train_step(
            self._structure,
            self._optimizer,
            mesh=self._mesh,
            make_views=views,
            momentum=self._teacher_momentum(stage),
            images_per_identity=stage.images_per_identity,
            loss=LossSettings(**self._settings.loss),
            seed=self._seed,
        )


class _Watch:
    """Collects what happens between two log lines."""

    def __init__(self, log: MetricsLog, batch_size: int):
        self._log, self._batch_size = log, batch_size
        self._reset()

    def _reset(self) -> None:
        self._steps, self._replaced, self._waited, self._since = 0, 0, 0.0, time.perf_counter()

    def count(self, replaced: int, waited: float) -> None:
        self._steps += 1
        self._replaced += replaced
        self._waited += waited

    def log(self, step: int, metrics: dict[str, jax.Array]) -> str:
        """Writes a line and returns a short note for the progress bar."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        elapsed = time.perf_counter() - self._since
        values["images_per_second"] = self._steps * self._batch_size / elapsed
        values["input_wait"] = self._waited / elapsed
        values["undecodable_images"] = self._replaced
        self._log.write(step, values)
        self._reset()
        return f"loss {values['loss']:.3f}, {values['images_per_second']:.0f} images/s"


def fingerprint(table: SampleTable) -> str:
    """SHA-256 of the paths and identities that training uses, in order."""
    digest = hashlib.sha256()
    digest.update("\n".join(table["file_path"]).encode())
    digest.update(table["identity"].astype("<i8").tobytes())
    return digest.hexdigest()
