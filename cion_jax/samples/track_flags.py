"""Flags about files of boxes, `--classes` and `--first_frame`, for every command that reads them."""

import re
from collections.abc import Sequence
from typing import Any

from absl import flags


def define_track_flags() -> None:
    flags.DEFINE_list(
        "classes", None, "Files of boxes: classes that are people, as 1,2; needed where boxes have classes."
    )
    flags.DEFINE_integer("first_frame", None, "Files of boxes: number of the first frame, 0 or 1. Default: 1.", 0, 1)


def track_options(values: flags.FlagValues) -> dict[str, Any]:
    """The options of `read_mot` that were given: `classes`, integers, and `first_frame`."""
    options: dict[str, Any] = {}
    if values.classes is not None:
        options["classes"] = _integers("classes", values.classes)
    if values.first_frame is not None:
        options["first_frame"] = values.first_frame
    return options


def _integers(flag: str, texts: Sequence[str]) -> tuple[int, ...]:
    if not texts or not all(re.fullmatch("[0-9]{1,9}", text.strip()) for text in texts):
        raise ValueError(f"--{flag}={','.join(texts)}: expected integers with commas between them, such as 1,2")
    return tuple(int(text) for text in texts)
