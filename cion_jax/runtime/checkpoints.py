"""Training checkpoints: Orbax, by step, atomic, saved in the background."""

import os
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp


class Checkpoints:
    """The checkpoints of one run in `folder`; the last `keep` stay. Use it in a `with` statement.

    A checkpoint is a tree of arrays and a small JSON-able dictionary. A save that was interrupted is never listed.
    """

    def __init__(self, folder: str | os.PathLike, *, keep: int = 3):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(Path(folder).resolve(), options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, tree: Any, meta: dict[str, Any]) -> None:
        """Starts saving; returns before it is on disk. `close` (the end of `with`) waits for it."""
        parts = ocp.args.Composite(state=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=parts)

    def restore(self, like: Any) -> Any:
        """The latest tree, with the structure, dtypes and shardings of `like` (arrays or shapes of arrays)."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        parts = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        return self._manager.restore(self.latest_step, args=parts)["state"]

    def meta(self) -> dict[str, Any]:
        """The latest dictionary."""
        return self._manager.restore(self.latest_step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]


def read_checkpoint(folder: str | os.PathLike) -> tuple[Any, dict[str, Any]]:
    """The latest tree as NumPy arrays, on whatever devices it was saved, and its dictionary.

    Raises:
      ValueError: `folder` holds no complete checkpoint.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: no such checkpoint folder")
    with Checkpoints(folder) as checkpoints:
        step = checkpoints.latest_step
        if step is None:
            raise ValueError(f"{folder}: no complete checkpoint in it; give the folder that holds the numbered steps")
        meta = checkpoints.meta()
    path = Path(folder).resolve() / str(step) / "state"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        shapes = reader.metadata(path).item_metadata.tree
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        return reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=arguments)), meta
