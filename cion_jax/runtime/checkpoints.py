"""Training checkpoints with Orbax: one per step, atomic, saved asynchronously, shared by all processes of a run."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.errors import JaxRuntimeError
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSteps, LatestN

from cion_jax.runtime.processes import lost_another


class Checkpoints:
    """The checkpoints of one run in `folder`; a context manager.

    A checkpoint is a tree of arrays and a small JSON-serialisable dictionary. Interrupted saves are never listed.
    The latest `keep` checkpoints are kept, and every `keep_every`-th step. All processes save and restore together;
    `folder` must be visible to all of them. Only one instance per run may be open at a time, apart from `read_only`
    ones, which do not touch a save in progress.
    """

    def __init__(
        self, folder: str | os.PathLike, *, keep: int = 3, keep_every: int | None = None, read_only: bool = False
    ):
        if keep < 1:
            raise ValueError(f"{keep} checkpoints to keep: at least the last one must stay, to continue from")
        self._folder = Path(folder).resolve()
        policies = [LatestN(keep)] + ([EveryNSteps(keep_every)] if keep_every else [])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies),
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and _of_devices(error):
            return  # closing would wait for a process that has died; this one is about to end
        with self._saving():
            self._manager.close()

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, tree: Any, meta: dict[str, Any]) -> None:
        """Starts an asynchronous save; leaving the `with` block waits until it is on disk.

        A step that is already saved is not overwritten.

        Raises:
            OSError: This save or the previous one could not be written.
        """
        if step == self.latest_step:
            return
        parts = ocp.args.Composite(state=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta))
        with self._saving():
            self._manager.save(step, args=parts)

    def restore(self, like: Any) -> Any:
        """Returns the latest tree, with the structure, dtypes and shardings of `like` (arrays or their shapes)."""
        return self._restore(state=ocp.args.StandardRestore(jax.tree.map(to_shape, like)))["state"]

    def meta(self) -> dict[str, Any]:
        """Returns the dictionary of the latest checkpoint."""
        return self._restore(meta=ocp.args.JsonRestore())["meta"]

    def _restore(self, **parts: Any) -> Any:
        step = self.latest_step
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**parts))
        except Exception as error:  # Orbax and TensorStore raise many types; the remedy is the same for all
            if _of_devices(error):
                raise
            older = [saved for saved in self._manager.all_steps() if saved != step]
            instead = f"continue from step {max(older)}" if older else "start from the beginning"
            raise ValueError(
                f"the checkpoint {self._folder / str(step)} cannot be read ({_first_line(error)}). If it was damaged, "
                f"bring back a copy, or remove that folder to {instead}; if settings of the model or optimizer were "
                f"changed, change them back or give another --workdir"
            ) from error

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # as above; errors of asynchronous writes surface here too
            if _of_devices(error):
                raise
            raise OSError(
                f"a checkpoint cannot be written to {self._folder} ({_first_line(error)}). What was saved before is "
                f"whole; make room or give write permission, and the same command continues from step "
                f"{self.latest_step or 0}"
            ) from error


def to_shape(array: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Returns an array's shape, dtype and sharding, as `Checkpoints.restore` needs them."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)


def read_checkpoint(folder: str | os.PathLike) -> tuple[Any, dict[str, Any]]:
    """Returns the latest tree as NumPy arrays, whatever devices it was saved from, and its dictionary.

    Raises:
        ValueError: `folder` holds no complete checkpoint.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: no such checkpoint folder")
    with Checkpoints(folder, read_only=True) as checkpoints:
        step = checkpoints.latest_step
        if step is None:
            raise ValueError(f"{folder}: no complete checkpoint in it; give the folder that holds the numbered steps")
        meta = checkpoints.meta()
    path = Path(folder).resolve() / str(step) / "state"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        shapes = reader.metadata(path).item_metadata.tree
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        return reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=arguments)), meta


def _of_devices(error: Exception) -> bool:
    """True for device errors (out of memory, another process died), which have nothing to do with the disk."""
    return isinstance(error, JaxRuntimeError) or lost_another(error)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no details'}"
