"""The training run: curriculum, batches, steps, checkpoints. All of it is a function of (config, data, step)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from cion_jax.conversion import write_weights
from cion_jax.conversion.imagenet import initialise
from cion_jax.distillation.loader import Batch, load_batches
from cion_jax.distillation.loop import Loop
from cion_jax.distillation.monitor import TrainingMonitor
from cion_jax.distillation.objectives import create_objective
from cion_jax.distillation.provenance import check_continuation, provenance
from cion_jax.distillation.sampler import IdentitySampler, identity_sizes
from cion_jax.distillation.schedules import Curriculum, make_curriculum
from cion_jax.models import create_model
from cion_jax.models.backbone import Backbone
from cion_jax.runtime.checkpoints import Checkpoints, to_shape
from cion_jax.runtime.config import Config
from cion_jax.runtime.mesh import make_mesh, replicate, shard_batch
from cion_jax.runtime.metrics import MetricsLog
from cion_jax.runtime.processes import check_shared, is_primary
from cion_jax.runtime.progress import console, progress
from cion_jax.runtime.termination import Termination
from cion_jax.samples import SampleTable


def pretrain(config: Config, table: SampleTable, images: Path, workdir: Path) -> None:
    """Trains to the end, resuming from the latest checkpoint in `workdir` if there is one.

    Writes `workdir/checkpoints` (Orbax), `workdir/metrics.jsonl`, and the backbones of teacher and student as
    ReIDZoo files, `workdir/teacher.pth` and `workdir/student.pth`; the card of `teacher.pth` is written last.

    Args:
        config: `config.pretrain` of a file in configs/, and `config.model`, `config.seed`.
        table: sample table with an `identity` column; rows of identity -1 are not used.
        images: folder that `file_path` is relative to.
        workdir: folder of the run.

    Raises:
        ValueError: invalid settings, data that differ from those the run was started on, a checkpoint that
            cannot be read, or divergence.
        OSError: a checkpoint could not be written.
        Terminated: SIGTERM or Ctrl-C came; the state is saved, and calling this again continues.
    """
    check_shared(workdir)
    run = _Run(config, table, images, make_mesh())
    settings = config.pretrain.checkpoint
    with Checkpoints(workdir / "checkpoints", keep=settings.keep, keep_every=settings.keep_every) as checkpoints:
        state = run.start(checkpoints)
        first_step = int(state.step)
        with MetricsLog(workdir / "metrics.jsonl", first_step=first_step) as log, Termination() as termination:
            state = run.train(state, checkpoints, log, termination)
    if is_primary():
        student, teacher = ((state.student, state.student_stats), (state.teacher, state.teacher_stats))
        write_weights(run.backbone(*student), workdir / "student.pth", about=run.about("student"))
        write_weights(run.backbone(*teacher), workdir / "teacher.pth", about=run.about("teacher"))
    if termination.signal is not None:  # during the last step
        termination.stop("all steps are done and the weights are written; the same command goes on from there")


def plan(config: Config, identities: Any, *, devices: int) -> Curriculum:
    """The curriculum of a config for a data set with these identities (`[rows]`, -1 = not used)."""
    settings = config.pretrain
    return make_curriculum(
        identity_sizes(identities),
        batch_size=settings.batch_size,
        devices=devices,
        micro_batches=settings.accumulate,
        epochs=settings.epochs,
        stage_epochs=settings.curriculum.stage_epochs,
        images_per_identity=settings.curriculum.images_per_identity,
    )


def create_backbone(config: Config, rngs: nnx.Rngs) -> Backbone:
    """The backbone of a config with weights drawn from `rngs`, or the ImageNet weights that it names."""
    dtype = jnp.dtype(config.pretrain.compute_dtype)
    backbone = create_model(config.model, dtype=dtype, rngs=rngs)
    if config.pretrain.init is not None:
        console.print(
            f"{config.model} starts from {config.pretrain.init}: {initialise(backbone, config.pretrain.init)}"
        )
    return backbone


def check_settings(settings: Config) -> None:
    """Raises ValueError for invalid values in `config.pretrain`, before the run starts."""
    counts = {name: settings[name] for name in ("batch_size", "epochs", "accumulate", "log_every", "loader_threads")}
    counts |= {f"checkpoint.{name}": settings.checkpoint[name] for name in ("every_steps", "keep")}
    if wrong := {name: count for name, count in counts.items() if count < 1}:
        raise ValueError(f"pretrain settings must be at least 1, got {wrong}")
    if (settings.checkpoint.keep_every or 0) % settings.checkpoint.every_steps:
        raise ValueError(
            f"checkpoint.keep_every {settings.checkpoint.keep_every} is no multiple of checkpoint.every_steps "
            f"{settings.checkpoint.every_steps}: steps between are never saved"
        )
    if settings.compute_dtype not in ("float32", "bfloat16"):
        raise ValueError(f"compute_dtype {settings.compute_dtype!r} is unknown; choose bfloat16 or float32")
    if (every := settings.teacher.update_every) not in ("step", "epoch"):
        raise ValueError(f"teacher.update_every {every!r} is unknown; choose step or epoch")


class _Run:
    """Everything that is constant over a run: settings, curriculum, sampler, optimizer and network structure."""

    def __init__(self, config: Config, table: SampleTable, images: Path, mesh: Mesh):
        self._settings, self._seed, self._mesh = config.pretrain, config.seed, mesh
        check_settings(config.pretrain)
        identities = table["identity"]
        self._plan = plan(config, identities, devices=mesh.size)
        self._sampler = IdentitySampler(identities, self._plan, batch_size=self._settings.batch_size, seed=self._seed)
        self._paths, self._images = table["file_path"], images
        self._meta = provenance(config, table, self._plan.stages)
        rngs = nnx.Rngs(config.seed)
        self._objective = create_objective(config, self._plan, create_backbone(config, rngs), rngs)

    def backbone(self, params: Any, stats: Any) -> Backbone:
        return nnx.merge(self._objective.structure, params, stats).backbone

    def about(self, which: str) -> dict[str, Any]:
        """The run's metadata for the card beside its weights."""
        config = json.loads(self._meta["config"])
        return self._meta | {"weights": which, "config": config, "input_size": list(self._settings.views.global_size)}

    def start(self, checkpoints: Checkpoints) -> Any:
        """The state of the latest checkpoint, or the initial state, as the only copy on the devices."""
        initial = replicate(self._objective.state, self._mesh)
        del self._objective.state
        step = checkpoints.latest_step
        if step is None:
            return initial
        check_continuation(checkpoints.meta(), self._meta, allow_changed_data=self._settings.allow_changed_data)
        if step > self._plan.total_steps:
            raise ValueError(
                f"step {step} is saved, past the {self._plan.total_steps} steps that these data make; give another "
                f"--workdir"
            )
        shapes, state_class = jax.tree.map(to_shape, vars(initial)), type(initial)
        del initial
        state = state_class(**checkpoints.restore(shapes))
        console.print(f"Continuing from step {step}.")
        return state

    def train(self, state: Any, checkpoints: Checkpoints, log: MetricsLog, termination: Termination) -> Any:
        step, total = int(state.step), self._plan.total_steps
        batches = self._batches(step)
        with progress("Pre-training", total, "steps") as advance:
            advance(step)
            loop = Loop(
                monitor=self._monitor(log),
                checkpoints=checkpoints,
                meta=self._meta,
                termination=termination,
                ship=self._ship,
                advance=advance,
                total_steps=total,
                log_every=self._settings.log_every,
                save_every=self._settings.checkpoint.every_steps,
            )
            for stage in self._plan.stages:
                # compiled when it is first called
                state = loop.run(state, stage.end_step, self._objective.step_function(stage, self._mesh), batches)
        return state

    def _monitor(self, log: MetricsLog) -> TrainingMonitor:
        settings = self._settings
        return TrainingMonitor(
            log,
            batch_size=settings.batch_size,
            total_steps=self._plan.total_steps,
            learning_from=self._plan.first_step(settings.optimizer.warmup_epochs),
            concerns=self._objective.concerns,
        )

    def _batches(self, first_step: int) -> Iterator[Batch]:
        return load_batches(
            self._sampler,
            self._paths,
            self._images,
            canvas=tuple(self._settings.canvas),
            first_step=first_step,
            threads=self._settings.loader_threads,
            skip_damaged=self._settings.skip_damaged,
        )

    def _ship(self, batch: Batch) -> dict[str, jax.Array]:
        return shard_batch({"images": batch.images, "sizes": batch.sizes}, self._mesh)
