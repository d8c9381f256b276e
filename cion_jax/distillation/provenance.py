"""Provenance of a run, stored with every checkpoint (settings, versions, data), and its check on resuming."""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from cion_jax.distillation.schedules import Stage
from cion_jax.runtime.config import Config, flat
from cion_jax.runtime.progress import console
from cion_jax.samples import SampleTable

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def provenance(config: Config, table: SampleTable, stages: Sequence[Stage]) -> dict[str, Any]:
    """Metadata of a checkpoint: `model`, `config` (JSON), `data` (fingerprint), `stages` and `versions`."""
    return {
        "model": config.model,
        "config": config.to_json(),
        "data": fingerprint(table),
        "stages": [list(dataclasses.astuple(stage)) for stage in stages],
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES},
    }


def fingerprint(table: SampleTable) -> str:
    """SHA-256 of the file paths and identities of the training table, in row order."""
    digest = hashlib.sha256()
    digest.update("\n".join(table["file_path"]).encode())
    digest.update(table["identity"].astype("<i8").tobytes())
    return digest.hexdigest()


def check_continuation(saved: dict[str, Any], now: dict[str, Any], *, allow_changed_data: bool) -> None:
    """Checks that a run may be resumed, and prints the settings and versions that have changed.

    Raises:
        ValueError: the data differ and `allow_changed_data` is not set, or the stages of the curriculum differ.
    """
    if saved["data"] != now["data"]:
        changed = f"the samples differ from those this run was started on (fingerprint {now['data'][:12]}, expected "
        changed += f"{saved['data'][:12]})"
        if not allow_changed_data:
            raise ValueError(
                f"{changed}; give the same samples, another --workdir for a new run, or "
                f"--config.pretrain.allow_changed_data=True to go on with these"
            )
        console.print(f"[yellow]Going on although {changed}.[/]", highlight=False, soft_wrap=True)
    elif saved.get("stages", now["stages"]) != now["stages"]:
        raise ValueError(
            f"batch size, epochs or curriculum differ from those this run was started with: steps are counted anew, "
            f"from {saved['stages']} to {now['stages']}. Change them back, or give another --workdir"
        )
    before, after = _settings(saved), _settings(now)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            console.print(
                f"[yellow]{name}[/] was {before.get(name)} when this run was saved, and is {after.get(name)} now.",
                highlight=False,
                soft_wrap=True,
            )


def _settings(about: dict[str, Any]) -> dict[str, Any]:
    """Settings and versions by their dotted names."""
    return flat({"config": json.loads(about["config"]), "versions": about.get("versions", {})})
