"""Schedules: images per identity (K), learning rate, weight decay, teacher momentum.

The curriculum fixes the number of steps of every epoch, and every other schedule is built on the exact total.
Sampler, loss and schedules all read the same `Curriculum`, so they cannot disagree after a resume.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]


@dataclasses.dataclass(frozen=True)
class Stage:
    """Consecutive epochs with one K. `first_step` counts from the start of training."""

    images_per_identity: int
    first_epoch: int
    epochs: int
    first_step: int
    steps_per_epoch: int

    @property
    def end_step(self) -> int:
        return self.first_step + self.epochs * self.steps_per_epoch


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """Stages of training in order (Sec. 4.1: K = 2, 4, 6, 8 from epochs 0, 40, 60, 80)."""

    stages: tuple[Stage, ...]

    @property
    def total_steps(self) -> int:
        return self.stages[-1].end_step

    def stage(self, step: int) -> Stage:
        """The stage that `step` belongs to."""
        for stage in self.stages:
            if step < stage.end_step:
                return stage
        raise ValueError(f"step {step} is past the end of training ({self.total_steps} steps)")

    def epoch(self, step: int) -> int:
        stage = self.stage(step)
        return stage.first_epoch + (step - stage.first_step) // stage.steps_per_epoch

    def first_step(self, epoch: float) -> int:
        """The step at which `epoch` (may be fractional) is reached; the total number of steps if past the end."""
        for stage in self.stages:
            if epoch < stage.first_epoch + stage.epochs:
                return stage.first_step + int((epoch - stage.first_epoch) * stage.steps_per_epoch)
        return self.total_steps


def make_curriculum(
    identity_sizes: np.ndarray,
    *,
    batch_size: int,
    devices: int = 1,
    micro_batches: int = 1,
    epochs: int,
    stage_epochs: Sequence[int],
    images_per_identity: Sequence[int],
) -> Curriculum:
    """Makes a curriculum with the exact number of steps of every stage.

    Args:
        identity_sizes: number of images of each identity, `[identities]`; n images give ceil(n / K) groups of K.
        batch_size: images of a global batch; whole identities must fit on every device, in every micro-batch.
        devices: devices of the mesh.
        micro_batches: sequential parts of a device's batch (gradient accumulation).
        epochs: total number of epochs.
        stage_epochs: epoch at which each stage begins; the first is 0.
        images_per_identity: K of each stage.

    Raises:
        ValueError: stages out of order, a K that does not divide a device's part of the batch or a micro-batch (the
            nearest batch sizes that do are named), or fewer groups than one batch needs.
    """
    starts, ks = list(stage_epochs), list(images_per_identity)
    if not starts or len(starts) != len(ks) or starts[0] != 0 or starts != sorted(set(starts)) or min(ks) < 1:
        raise ValueError(
            f"stages need one K >= 1 each and rising start epochs from 0, got epochs {starts} with images per "
            f"identity {ks}"
        )
    used = [k for k, start in zip(ks, starts) if start < epochs]
    if micro_batches < 1:
        raise ValueError(f"a batch can't be cut into {micro_batches} micro-batches; give 1 (no accumulation) or more")
    step = whole_identities(batch_size, used, devices=devices, micro_batches=micro_batches)
    stages, first_step = [], 0
    for k, start, end in zip(used, starts, [*starts[1:], epochs]):
        groups = int((-(-np.asarray(identity_sizes) // k)).sum())
        steps = groups * k // batch_size
        if steps == 0:
            raise ValueError(
                f"{groups} groups of {k} images are fewer than one batch of {batch_size}; lower the batch size to "
                f"{groups * k // step * step or step} or bring more images"
            )
        stages.append(Stage(k, start, min(end, epochs) - start, first_step, steps))
        first_step = stages[-1].end_step
    return Curriculum(tuple(stages))


def whole_identities(batch_size: int, used: Sequence[int], *, devices: int, micro_batches: int = 1) -> int:
    """The number that batch sizes must be multiples of, for `used` images per identity.

    Raises:
        ValueError: `batch_size` is none; the nearest ones that are are named.
    """
    step = int(np.lcm.reduce(used)) * devices * micro_batches
    if batch_size % step:
        below, above = batch_size // step * step, (batch_size // step + 1) * step
        near = " or ".join(str(b) for b in (below, above) if b)
        parts = f"{devices} device(s)" + (f" in each of {micro_batches} micro-batches" if micro_batches > 1 else "")
        raise ValueError(
            f"batch size {batch_size} does not give each of {parts} whole identities of {list(used)} images; use {near}"
        )
    return step


def cosine_schedule(start: float, end: float, steps: int, warmup_steps: int = 0) -> Schedule:
    """Linear warm-up from 0 to `start` over `warmup_steps` (both ends included), then half a cosine to `end`.

    With w = `warmup_steps`, the value at step t >= w is, as in DINO,

        end + (start - end) (1 + cos(pi (t - w) / (steps - w))) / 2.
    """
    if not 0 <= warmup_steps <= steps:
        raise ValueError(f"warm-up of {warmup_steps} steps must lie within the {steps} steps of training")

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        warmup = start * step / max(warmup_steps - 1, 1)
        progress = jnp.clip((step - warmup_steps) / max(steps - warmup_steps, 1), 0, 1)
        decay = end + (start - end) * (1 + jnp.cos(jnp.pi * progress)) / 2
        return jnp.where(step < warmup_steps, warmup, decay)

    return schedule
