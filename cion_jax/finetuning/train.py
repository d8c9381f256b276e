"""The fine-tuning run of any method: epochs, relabelling, steps, checkpoints and scores."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from cion_jax.distillation.loader import Batch, load_batches
from cion_jax.distillation.loop import Loop
from cion_jax.distillation.monitor import TrainingMonitor
from cion_jax.distillation.provenance import check_continuation, provenance
from cion_jax.evaluation import Benchmark
from cion_jax.finetuning.data import Samples, training_data
from cion_jax.finetuning.method import FineTunedNetwork, Method
from cion_jax.finetuning.methods import create_method
from cion_jax.finetuning.scores import Scores
from cion_jax.finetuning.step import TrainState, create_state, make_train_step
from cion_jax.finetuning.weights import create_backbone, start_from
from cion_jax.models.definition_order import record_definition_order
from cion_jax.runtime.checkpoints import Checkpoints, to_shape
from cion_jax.runtime.config import Config
from cion_jax.runtime.mesh import make_mesh, replicate, shard_batch
from cion_jax.runtime.metrics import MetricsLog
from cion_jax.runtime.processes import check_shared, is_primary
from cion_jax.runtime.progress import console, progress
from cion_jax.runtime.termination import Termination


class Span(NamedTuple):
    """Consecutive steps of one epoch with the same frozen parts; `begins` if they are the first of the epoch."""

    first_step: int
    end_step: int
    epoch: int
    begins: bool
    frozen: tuple[str, ...]


def fine_tune(config: Config, samples: Samples, workdir: Path, *, benchmark: Benchmark | None = None) -> dict[str, Any]:
    """Trains to the end, resuming from the latest checkpoint in `workdir` if there is one; returns the scores.

    Writes `workdir/checkpoints` (Orbax), `metrics.jsonl`, `epochs.jsonl` (numbers of each epoch: scores, clusters), and
    the network as the released code's `last.pth`, and `best.pth` if it is scored after several epochs. The card of
    `last.pth`, with the scores, is written last.

    Args:
        config: a config of configs/finetune.
        samples: training images.
        workdir: folder of the run.
        benchmark: scored after training and, if `config.evaluate.every_epochs` is set, after so many epochs each.

    Raises:
        ValueError: invalid settings or data, a start that does not fit, a checkpoint that cannot be read, divergence.
        OSError: a checkpoint could not be written.
        Terminated: SIGTERM or Ctrl-C came; the state is saved, and calling this again continues.
    """
    run, network, scores = _run_to_the_end(config, samples, workdir, create_method(config), benchmark)
    return scores.at_the_end(run.epochs, network) if is_primary() else {}


def train(config: Config, samples: Samples, workdir: Path, *, method: Method) -> FineTunedNetwork:
    """As `fine_tune`, by a method of the caller's; returns the trained network and writes no weight files."""
    return _run_to_the_end(config, samples, workdir, method, None)[1]


def _run_to_the_end(
    config: Config, samples: Samples, workdir: Path, method: Method, benchmark: Benchmark | None
) -> tuple["_Run", FineTunedNetwork, Scores]:
    """The run, its trained network, and the scores so far."""
    check_shared(workdir)
    run = _Run(config, samples, make_mesh(), method)
    settings = config.checkpoint
    with Checkpoints(workdir / "checkpoints", keep=settings.keep, keep_every=settings.keep_every) as checkpoints:
        state = run.start(checkpoints)
        first_step = int(state.step)
        with (
            MetricsLog(workdir / "metrics.jsonl", first_step=first_step) as log,
            MetricsLog(workdir / "epochs.jsonl", first_step=first_step) as epochs,
            Termination() as termination,
        ):
            scores = Scores(config, method, benchmark, workdir, run.meta)
            state = run.train(state, checkpoints, log, epochs, termination, scores)
    return run, run.network(state), scores


class _Run:
    """Everything that is constant over a run."""

    def __init__(self, config: Config, samples: Samples, mesh: Mesh, method: Method):
        self._config, self._mesh, self.method = config, mesh, method
        if not (config.weights or config.init or config.from_scratch):
            raise ValueError(
                "no weights to start from: give --config.weights=W (pre-trained) or --config.init=W (ImageNet), or "
                "--config.from_scratch=True to train a newly initialised network"
            )
        self._data = training_data(samples, needs_identities=not self.method.relabels)
        self._plan = self.method.plan(self._data, mesh.size)
        self._optimizer = self.method.optimizer(self._plan)
        self.meta = provenance(config, samples.table.with_columns(identity=self._data.labels), self._plan.stages)
        network = make_network(config, self.method, self._data.identities)
        memory = self.method.initial_memory(network, self._data)
        self._structure, self._initial = create_state(network, self._optimizer, memory, self._data.labels)

    @property
    def epochs(self) -> int:
        return self._plan.stages[0].epochs

    def start(self, checkpoints: Checkpoints) -> TrainState:
        """The state of the latest checkpoint, or the initial state, as the only copy on the devices."""
        initial = replicate(self._initial, self._mesh)
        del self._initial
        step = checkpoints.latest_step
        if step is None:
            return initial
        saved = checkpoints.meta()
        _check_same_network(json.loads(saved["config"]), self._config)
        check_continuation(saved, self.meta, allow_changed_data=self._config.allow_changed_data)
        shapes = jax.tree.map(to_shape, vars(initial))
        del initial
        console.print(f"Continuing from step {step}.")
        return TrainState(**checkpoints.restore(shapes))

    def train(
        self,
        state: TrainState,
        checkpoints: Checkpoints,
        log: MetricsLog,
        epochs: MetricsLog,
        termination: Termination,
        scores: Scores,
    ) -> TrainState:
        total, batches = self._plan.total_steps, None
        with progress("Fine-tuning", total, "steps") as advance:
            advance(int(state.step))
            loop = Loop(
                monitor=self._monitor(log),
                checkpoints=checkpoints,
                meta=self.meta,
                termination=termination,
                ship=functools.partial(self._ship, np.asarray(state.labels)),
                advance=advance,
                total_steps=total,
                log_every=self._config.log_every,
                save_every=self._config.checkpoint.every_steps,
            )
            for span in self._spans(int(state.step)):
                if span.begins and scores.due(span.epoch):
                    epochs.write(span.first_step, scores.after_epoch(span.epoch, self.network(state)))
                if span.begins and self.method.relabels:
                    state, metrics = self._relabelled(state, span.epoch)
                    epochs.write(span.first_step, metrics)
                    loop = dataclasses.replace(loop, ship=functools.partial(self._ship, np.asarray(state.labels)))
                if batches is None or (span.begins and self.method.relabels):
                    batches = self._batches(state, span)
                state = loop.run(state, span.end_step, self._step_function(span.frozen), batches)
        return state

    def network(self, state: TrainState) -> FineTunedNetwork:
        """The state's network, in evaluation mode, on one device."""
        network = nnx.merge(self._structure, *jax.device_get((state.params, state.stats)))
        network.eval()
        return network

    def _spans(self, step: int) -> Iterator[Span]:
        """The spans of training from `step` on."""
        plan, phases = self._plan, self.method.phases(self._plan)
        (stage,) = plan.stages
        epochs = [plan.first_step(epoch) for epoch in range(stage.epochs)]
        ends = sorted({*epochs, *(phase.first_step for phase in phases), plan.total_steps})
        for first, end in itertools.pairwise(ends):
            if end > step:
                frozen = [phase.frozen for phase in phases if phase.first_step <= first][-1]
                begins = first in epochs and first >= step
                yield Span(max(first, step), end, plan.epoch(first), begins, tuple(frozen))

    def _relabelled(self, state: TrainState, epoch: int) -> tuple[TrainState, Mapping[str, float]]:
        """The state with the labels and the memory of `epoch`, and the method's metrics of them."""
        labels, memory = jax.device_get((state.labels, state.memory))
        new = self.method.relabel(self.network(state), self._data, labels, memory, epoch=epoch)
        placed = replicate((jnp.asarray(new.labels, jnp.int32), new.memory), self._mesh)
        return dataclasses.replace(state, labels=placed[0], memory=placed[1]), new.metrics

    def _batches(self, state: TrainState, span: Span) -> Iterator[Batch]:
        """Batches from the span's first step to the end of its epoch, or of training if labels stay."""
        end = self._plan.first_step(span.epoch + 1) if self.method.relabels else self._plan.total_steps
        return load_batches(
            self.method.sampler(np.asarray(state.labels), self._data, self._plan, self._config.seed),
            self._data.paths,
            self._data.root,
            canvas=tuple(self._config.canvas),
            first_step=span.first_step,
            end_step=end,
            threads=self._config.loader_threads,
            skip_damaged=self._config.skip_damaged,
        )

    def _ship(self, labels: np.ndarray, batch: Batch) -> dict[str, jax.Array]:
        part = {"images": batch.images, "sizes": batch.sizes, "labels": labels[batch.rows]}
        return shard_batch(part, self._mesh)

    def _monitor(self, log: MetricsLog) -> TrainingMonitor:
        stage = self._plan.stages[0]
        return TrainingMonitor(
            log,
            batch_size=self.method.settings.batch_size,
            total_steps=self._plan.total_steps,
            learning_from=stage.steps_per_epoch,
            concerns=self.method.concerns,
        )

    @functools.cache  # noqa: B019  (a run lives as long as the process)
    def _step_function(self, frozen: tuple[str, ...]) -> Callable:
        return make_train_step(
            self._structure,
            self._optimizer,
            self.method,
            mesh=self._mesh,
            seed=self._config.seed,
            frozen=frozen,
        )


def _check_same_network(saved: Mapping[str, Any], config: Config) -> None:
    if (saved["method"], saved["model"]) != (config.method, config.model):
        raise ValueError(
            f"the checkpoints are of method {saved['method']!r} and model {saved['model']!r}, and this config is of "
            f"{config.method!r} and {config.model!r}; take the config that the run was started with, or give another "
            "--workdir"
        )


def make_network(config: Config, method: Method, identities: int) -> FineTunedNetwork:
    """The network of a config at its start: pre-trained, ImageNet or random weights, and the method's new layers."""
    rngs, settings = nnx.Rngs(config.seed), method.settings
    backbone = create_backbone(
        config.model,
        size=method.positions_size,
        resample_positions=settings.get("resample_positions", False),
        rngs=rngs,
        dtype=jnp.dtype(config.compute_dtype),
    )
    console.print(f"{config.model} starts from {start_from(backbone, config.weights, config.init)}", highlight=False)
    network = method.create_network(backbone, identities, rngs)
    record_definition_order(network)
    return network
