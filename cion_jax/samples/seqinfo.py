"""MOTChallenge's `seqinfo.ini`: folder, number and size of a sequence's frames."""

import configparser
import re
from pathlib import Path
from typing import NamedTuple

from cion_jax.runtime.file_kinds import refuse_other_kinds

FRAMES = "img1"


class SequenceInfo(NamedTuple):
    """Folder of the frames, their number, and their width and height in pixels; None where it is not said."""

    folder: str = FRAMES
    length: int | None = None
    size: tuple[int, int] | None = None


def find_seqinfo(folder: Path) -> Path | None:
    """The `seqinfo.ini` of a folder, its name in any case."""
    return next((file for file in sorted(folder.iterdir()) if file.name.lower() == "seqinfo.ini"), None)


def read_seqinfo(file: Path) -> SequenceInfo:
    """Reads the section [Sequence], its name and those of its keys in any case.

    Raises:
        ValueError: No such section, numbers that are no positive integers, or a width without a height.
    """
    refuse_other_kinds(file)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text(encoding="utf-8-sig"))
        section = next((name for name in parser.sections() if name.strip().lower() == "sequence"), None)
        if section is None:
            raise ValueError(f"it has {parser.sections() or 'no sections'}")
        length, width, height = (_positive(parser[section], name) for name in ("seqLength", "imWidth", "imHeight"))
        if (width is None) != (height is None):
            raise ValueError("one of imWidth and imHeight without the other")
        folder = parser[section].get("imDir", FRAMES).strip().replace("\\", "/")
        if "\0" in folder:
            raise ValueError(f"imDir is {folder!r}")
    except (configparser.Error, ValueError) as error:
        raise ValueError(f"{file}: expected a section [Sequence] ({error!s:.300})") from error
    return SequenceInfo(folder, length, None if width is None or height is None else (width, height))


def _positive(section: configparser.SectionProxy, name: str) -> int | None:
    text = section.get(name, "").strip()
    if not text:
        return None
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        raise ValueError(f"{name} is {text!r:.80}, expected a positive integer")
    return int(text)
