"""The settings of a run, kept in its folder so that results of two configs are never mixed."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cion_jax.pipeline.stages import STAGES
from cion_jax.pipeline.workdir import Workdir
from cion_jax.runtime.config import Config, flat
from cion_jax.runtime.files import read_json, write_json

# Settings, or the groups they are in, that change how a run goes but not what comes out.
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
    """Keeps the config beside the results, and refuses to mix the results of two configs in one folder.

    Settings may change as long as no stage that depends on them has begun; `begun` are all of these, and by default
    those that have left something in the folder.
    """
    path = workdir.root / "config.json"
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
    """Stages whose results other settings would not fit; a run that is not done says itself what may change."""
    config = remembered(root)
    trained = any(Workdir(root, config).runs.glob("*/teacher.pth"))
    return [*config.stages, *(["pretrain"] if trained else [])]


def remembered(root: Path) -> Config:
    """The config that `remember_config` kept in `root`; its stages are those whose results are there."""
    settings: dict[str, Any] = {}
    for name, text in read_json(root / "config.json").items():
        *groups, setting = name.split(".")
        group = settings
        for part in groups:
            group = group.setdefault(part, {})
        group[setting] = _value(text)
    config = ConfigDict(settings)
    config.stages = tuple(STAGES)  # a stage's marker may depend on which there are
    workdir = Workdir(root, config)
    config.stages = tuple(name for name, stage in STAGES.items() if stage.marker(workdir).exists())
    return config


def _text(value: Any) -> str:
    """What `_value` makes this setting of again."""
    return str(value) if _value(str(value)) == value else repr(value)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):  # a string
        return text
