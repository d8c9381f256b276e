"""The settings of a run, kept in its folder so that results of two configs are never mixed."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cion_jax.pipeline.stages import STAGES
from cion_jax.pipeline.workdir import Workdir, config_file
from cion_jax.runtime.config import Config, flat
from cion_jax.runtime.files import read_json, write_json

# Settings, or groups of them, that do not change the results of a run.
_NO_RESULT = (
    "stages",
    "extractor.batch_size",
    "evaluate.batch_size",
    "pretrain.loader_threads",
    "pretrain.log_every",
    "pretrain.checkpoint",
    "pretrain.allow_changed_data",
)


def remember_config(config: Config, workdir: Workdir, *, begun: Sequence[str] | None = None) -> None:
    """Writes the config beside the results and refuses to mix the results of two configs in one folder.

    A setting may change until a stage that depends on it has begun.

    Args:
        config: the config of this call.
        workdir: the folder of the run.
        begun: the stages that have begun; by default those that have left files in the folder.

    Raises:
        ValueError: a setting differs that the results in the folder depend on.
    """
    path = config_file(workdir.root)
    settings = flat(config.to_dict()).items()
    now = {name: _text(value) for name, value in settings if not name.startswith(_NO_RESULT)}
    if path.exists():
        before = read_json(path)
        used = {group for name in (_begun(workdir.root) if begun is None else begun) for group in STAGES[name].settings}
        changed = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
        if fixed := [name for name in changed if name.partition(".")[0] in used]:
            changes = ", ".join(f"{n}: {before.get(n)} -> {now.get(n)}" for n in fixed[:5])
            raise ValueError(f"{workdir.root} was made with another config ({changes}); give another --workdir")
    write_json(path, now)


def _begun(root: Path) -> list[str]:
    """Stages whose settings are fixed by existing results. An unfinished pre-training run checks its own settings."""
    config = remembered(root)
    workdir = Workdir(root, config)
    begun = {"pretrain": any(workdir.runs.glob("*/teacher.pth")), "rounds": workdir.rounds.exists()}
    return [*config.stages, *(name for name, has in begun.items() if has)]


def remembered(root: Path) -> Config:
    """The config that `remember_config` wrote in `root`, with the stages that are complete there."""
    settings: dict[str, Any] = {}
    for name, text in read_json(config_file(root)).items():
        *groups, setting = name.split(".")
        group = settings
        for part in groups:
            group = group.setdefault(part, {})
        group[setting] = _value(text)
    config = ConfigDict(settings)
    config.stages = tuple(STAGES)  # a marker's path may depend on the stages
    workdir = Workdir(root, config)
    config.stages = tuple(name for name, stage in STAGES.items() if stage.marker(workdir).exists())
    return config


def _text(value: Any) -> str:
    """A setting as text that `_value` turns back into it."""
    return str(value) if _value(str(value)) == value else repr(value)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):  # a string
        return text
