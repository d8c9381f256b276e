"""Mistyped overrides of a config, `--config.pretrain.bacth_size=3`, and the settings that were meant."""

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

_EXAMPLES = 3
_ALIKE = 0.7  # of difflib's ratio; at its default, 0.6, "blur" is suggested for "lr"


def mistyped_override(argv: Sequence[str]) -> str | None:
    """Message for the first `--config.NAME` in `argv` that is no setting of the config; None if all are settings.

    To be called after parsing failed: absl then has no value for the flag, so the config is loaded again.
    """
    if "config" not in flags.FLAGS:
        return None
    file = _value(argv, "config") or flags.FLAGS["config"].default
    if file is None:
        return None
    config: Any = flags.FLAGS["config"].parser.parse(file)
    known = dict.fromkeys(_settings(config))
    for argument in argv:
        override = re.match(r"--?config\.(?P<name>[^=\[]+)", argument)
        if override and override["name"] not in known:
            name = override["name"]
            return f"--config.{name}: the config has no such setting{_suggestion(name, list(known))}"
    return None


def _value(argv: Sequence[str], flag: str) -> str | None:
    """The last value of a flag, written as `--flag=value` or `--flag value`."""
    joined = re.findall(rf"(?m)^--?{flag}[=\n](.*)$", "\n".join(argv))
    return joined[-1] if joined else None


def _settings(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    """Full names of all settings and groups of settings."""
    for name, value in config.items():
        yield prefix + name
        if isinstance(value, ConfigDict):
            yield from _settings(value, f"{prefix}{name}.")


def _suggestion(name: str, known: Sequence[str]) -> str:
    """The settings with the nearest last name, those of the nearest group first."""
    last_names = {setting: setting.rpartition(".")[2] for setting in known}
    close = difflib.get_close_matches(name.rpartition(".")[2], set(last_names.values()), 1, _ALIKE)
    meant = [setting for setting in known if last_names[setting] in close]
    meant.sort(key=lambda setting: -difflib.SequenceMatcher(None, name, setting).ratio())
    return f", did you mean --config.{' or --config.'.join(meant[:_EXAMPLES])}?" if meant else ""
