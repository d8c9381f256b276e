"""The text of MOTChallenge files, as different trackers write it: `frame, id, left, top, width, height, ...`."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from cion_jax.runtime.file_kinds import refuse_other_kinds
from cion_jax.samples.rows import NotIntegers, integers

MIN_VALUES, MAX_VALUES = 6, 10
_DELIMITERS = (b",", b";", b"\t", b" ")
_EXPECTED = "frame, id, left, top, width, height, ..."
# Names of the first six columns in header lines, in lower case and letters only, without "bb", "bbox" or "box".
_HEADER = (
    {"frame", "frameid", "frameindex", "frameno", "framenumber"},
    {"id", "identity", "objectid", "personid", "targetid", "track", "trackid", "tracklet"},
    {"left", "x"},
    {"top", "y"},
    {"width", "w"},
    {"height", "h"},
)


class BoxLines(NamedTuple):
    """The values of a file, line by line.

    Attributes:
        frames, ids: `[n]` int64.
        boxes: `[n, 4]` float64: left, top, width, height.
        rest: `[n, 0 to 4]` float64, the remaining values.
        first: The line number of the first row, from 1; 2 after a header line.
    """

    frames: np.ndarray
    ids: np.ndarray
    boxes: np.ndarray
    rest: np.ndarray
    first: int

    def check(self, path: Path, bad: np.ndarray, what: str) -> None:
        """Raises `ValueError` if any line is `bad`, `[n]` bool."""
        if bad.any():
            line = bad.argmax() + self.first
            raise ValueError(f"{path}: {what} in {bad.sum()} of {len(bad)} lines, first in line {line}")


def read_box_lines(path: Path) -> BoxLines:
    """Reads lines of 6 to 10 numbers, separated by commas, semicolons, tabs or spaces.

    A byte order mark, a header line that names the six columns, and a separator at the end of all lines are skipped.

    Raises:
        ValueError: No such file, another kind of file, no lines, unequal lines, and values that are no finite numbers,
            or no whole ones for frames and ids.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file of boxes")
    refuse_other_kinds(path)
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n ")
    first, _, others = data.partition(b"\n")
    delimiter = next((mark for mark in _DELIMITERS if mark in first.strip()), b",")
    if delimiter == b" ":
        first, others, data = (b"\n".join(map(_single_spaces, text.splitlines())) for text in (first, others, data))
    has_header = _is_header(path, first.decode(errors="replace"), delimiter.decode())
    table = _table(path, others if has_header else data, delimiter.decode())
    lines_before = 2 if has_header else 1
    numbers = np.stack([column.to_numpy() for column in table.columns[2:]], axis=1)
    frames, ids = (_integers(path, table[index], name, lines_before) for index, name in enumerate(("frame", "id")))
    lines = BoxLines(frames, ids, numbers[:, :4], numbers[:, 4:], lines_before)
    lines.check(path, np.asarray(~np.isfinite(numbers).all(axis=1)), "a value that is no number")
    return lines


def _single_spaces(line: bytes) -> bytes:
    return b" ".join(line.split())


def _is_header(path: Path, line: str, delimiter: str) -> bool:
    names = [re.sub("[^a-z0-9]", "", name.lower()) for name in line.split(delimiter)]
    if not any(name[:1].isalpha() for name in names) or names[0] in ("nan", "inf"):
        return False
    stems = [re.sub(r"^(bbox|bb|box)(?=.)", "", name) for name in names[: len(_HEADER)]]
    if len(stems) < len(_HEADER) or any(stem not in known for stem, known in zip(stems, _HEADER)):
        raise ValueError(f"{path}: line 1 is {line.strip()!r:.120}, expected {_EXPECTED}, as numbers or as a header")
    return True


def _table(path: Path, data: bytes, delimiter: str) -> pa.Table:
    """Columns of the lines in `data`: frame and id as text, the others as numbers."""
    first = data.partition(b"\n")[0].rstrip(b" \r")
    ends_in_delimiter = first.endswith(delimiter.encode())
    count = first.count(delimiter.encode()) + (not ends_in_delimiter)
    if not MIN_VALUES <= count <= MAX_VALUES:
        raise ValueError(
            f"{path}: {count} values in the first line, expected {MIN_VALUES} to {MAX_VALUES} with commas between "
            f"them: {_EXPECTED}"
        )
    names = [str(index) for index in range(count + ends_in_delimiter)]
    types = {name: pa.string() if index < 2 else pa.float64() for index, name in enumerate(names[:count])}
    types |= dict.fromkeys(names[count:], pa.string())
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data),
            pyarrow.csv.ReadOptions(column_names=names, use_threads=False),  # threaded errors do not name the row
            pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=False, ignore_empty_lines=False),
            pyarrow.csv.ConvertOptions(column_types=types, null_values=[]),
        )
    except pa.ArrowException as error:
        raise ValueError(f"{path}: cannot be read as boxes, or cut off ({error!s:.300})") from error
    if ends_in_delimiter and any(text.strip() for text in table[count].to_pylist()):
        raise ValueError(f"{path}: {count} values in the first line, more in others; expected the same in all")
    return table.select(names[:count])


def _integers(path: Path, column: Any, name: str, first: int) -> np.ndarray:
    try:
        return integers(column).to_numpy()
    except NotIntegers as error:
        line = error.bad.argmax()
        raise ValueError(
            f"{path}: a {name} that is {error} in {error.bad.sum()} of {len(column)} lines, first in line "
            f"{line + first}: {column[line].as_py()!r:.80}"
        ) from None
