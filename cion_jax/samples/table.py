"""Sample table: one row per person crop, validated once, at construction.

Columns:

    file_path   string, required    path relative to the image root, unique
    video       string or integer   source video (or camera recording) of the crop
    tracklet    string or integer   unique within its video
    frame       integer             frame number within the video
    identity    integer             training label; -1 = discarded
    person      integer             true person, if known; only used to score identities

Other columns are kept unchanged. The columns above may have no missing values.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

INTEGER_COLUMNS = ("frame", "identity", "person")
LABEL_COLUMNS = ("video", "tracklet")
COLUMNS = ("file_path", *LABEL_COLUMNS, *INTEGER_COLUMNS)
pc: Any = pyarrow.compute  # its functions are generated at import time, unknown to type checkers
EXAMPLES = 5  # number of offending rows that a message shows

# Backslashes count as separators, so that a table is valid on all systems or on none.
_ABSOLUTE = r"^[/\\]|^[A-Za-z]:"
_PARENT = r"(^|[/\\])\.\.([/\\]|$)"


class SampleTable:
    """An immutable, validated table of samples over a `pyarrow.Table` (`.arrow`).

    `source` names the table in error messages (the file it came from). Invalid content raises a `ValueError` that
    names rows, counted from 0. All checks are vectorised, for tens of millions of rows.
    """

    def __init__(self, arrow: pa.Table, *, source: str = "sample table"):
        self.arrow = _checked(arrow, source)

    @classmethod
    def from_columns(cls, **columns: Any) -> "SampleTable":
        """A table from named columns: lists, NumPy arrays or Arrow arrays of equal length."""
        return cls(_arrow_table(columns))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(self.arrow.column_names)

    @property
    def videos(self) -> np.ndarray:
        """`[rows]` int32: the video of each row, numbered by first appearance."""
        return _codes(self._column("video"))

    @property
    def tracklets(self) -> np.ndarray:
        """`[rows]` int32: the (video, tracklet) pair of each row, numbered by first appearance."""
        within = _codes(self._column("tracklet")).astype(np.int64)
        return _codes(pa.chunked_array([self.videos * (within.max() + 1) + within]))

    def __len__(self) -> int:
        return self.arrow.num_rows

    def __getitem__(self, name: str) -> np.ndarray:
        """A column as `[rows]` NumPy array: int64 for integers, object for strings."""
        return self._column(name).to_numpy()

    def with_columns(self, **columns: Any) -> "SampleTable":
        """The table with columns added or replaced."""
        added = _arrow_table(columns)
        if added.num_rows != len(self):
            raise ValueError(f"columns {', '.join(columns)}: {added.num_rows} rows, the table has {len(self)}")
        if "file_path" in columns:
            return SampleTable(_replaced(self.arrow, added))
        return _trusted(_replaced(self.arrow, _checked_columns(added, "sample table")))

    def select(self, rows: np.ndarray | Sequence[int]) -> "SampleTable":
        """The given rows (a boolean mask or distinct row numbers), in the order given."""
        rows = np.asarray(rows)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise ValueError(f"mask of shape {rows.shape} for a table of {len(self)} rows")
            rows = np.flatnonzero(rows)
        if rows.size == 0:
            raise ValueError("no row is selected; a sample table has at least one")
        if len(np.unique(rows)) != len(rows):
            raise ValueError("a row is selected more than once; paths in a sample table are unique")
        return _trusted(self.arrow.take(pa.array(rows)))

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self.columns:
            raise ValueError(f"the sample table has no column {name!r}; it has {', '.join(self.columns)}")
        return self.arrow[name]


def _trusted(arrow: pa.Table) -> SampleTable:
    """Wraps a table that is known to be valid, without the cost of checking all paths again."""
    table = object.__new__(SampleTable)
    table.arrow = arrow
    return table


def _arrow_table(columns: dict[str, Any]) -> pa.Table:
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([pa.array(values)])
        except pa.ArrowException as error:
            raise ValueError(f"column {name!r}: values of more than one type ({error})") from error
    try:
        return pa.table(arrays)
    except pa.ArrowInvalid:
        lengths = {name: len(array) for name, array in arrays.items()}
        raise ValueError(f"columns of different lengths: {lengths}") from None


def _replaced(table: pa.Table, added: pa.Table) -> pa.Table:
    for name in added.column_names:
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, added[name])
        else:
            table = table.append_column(name, added[name])
    return table


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    encoded = column.combine_chunks() if column.num_chunks > 1 else column.chunk(0)
    return encoded.dictionary_encode().indices.to_numpy()


def _checked(table: pa.Table, source: str) -> pa.Table:
    if "file_path" not in table.column_names:
        names = ", ".join(table.column_names) or "none"
        raise ValueError(f"{source}: no column 'file_path' (columns found: {names})")
    if len(set(table.column_names)) != len(table.column_names):
        raise ValueError(f"{source}: a column name appears twice: {', '.join(table.column_names)}")
    if table.num_rows == 0:
        raise ValueError(f"{source}: no rows")
    table = _checked_columns(table, source)
    _check_paths(table["file_path"], source)
    return table


def _checked_columns(table: pa.Table, source: str) -> pa.Table:
    """Checks types and missing values of the known columns and casts them to int64 or large_string."""
    for name in set(COLUMNS).intersection(table.column_names):
        index = table.column_names.index(name)
        table = table.set_column(index, name, _checked_column(name, table[name], source))
    return table


def _checked_column(name: str, column: pa.ChunkedArray, source: str) -> pa.ChunkedArray:
    if column.null_count:
        raise _row_error(source, f"column {name!r} has no value", pc.is_null(column))
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    integer = pa.types.is_integer(column.type)
    if not (text and name not in INTEGER_COLUMNS) and not (integer and name != "file_path"):
        expected = {"file_path": "strings"} | dict.fromkeys(LABEL_COLUMNS, "strings or integers")
        raise ValueError(f"{source}: column {name!r} holds {column.type}, expected {expected.get(name, 'integers')}")
    try:
        column = column.cast(pa.int64() if integer else pa.large_string())
    except pa.ArrowInvalid as error:
        raise ValueError(f"{source}: column {name!r}: {error}") from error
    if name == "identity" and pc.min(column).as_py() < -1:
        raise _row_error(source, "identity below -1 (-1 = discarded)", pc.less(column, -1), column)
    return column


def _check_paths(paths: pa.ChunkedArray, source: str) -> None:
    refused = {
        "file_path is empty": pc.equal(paths, ""),
        "file_path is absolute, it must be relative to the image root": pc.match_substring_regex(paths, _ABSOLUTE),
        "file_path has a '..', it must stay inside the image root": pc.match_substring_regex(paths, _PARENT),
    }
    for reason, bad in refused.items():
        if pc.any(bad).as_py():
            raise _row_error(source, reason, bad, paths)
    plain = paths
    if pc.any(pc.match_substring_regex(paths, r"//|(^|/)\./")).as_py():
        plain = pc.replace_substring_regex(plain, "/+", "/")
        plain = pc.replace_substring_regex(plain, r"(^|/)(\./)+", r"\1")
    if pc.count_distinct(plain).as_py() != len(plain):
        codes = _codes(plain)
        raise _row_error(source, "file_path appears more than once", np.bincount(codes)[codes] > 1, paths)


def _row_error(source: str, reason: str, bad: Any, values: pa.ChunkedArray | None = None) -> ValueError:
    """Error for the rows in the mask `bad`, with examples from the column `values`."""
    rows = np.flatnonzero(np.asarray(bad))
    shown = [
        f"row {row}" + ("" if values is None else f": {values[row].as_py()!r}") for row in rows[:EXAMPLES].tolist()
    ]
    more = ", ..." if len(rows) > EXAMPLES else ""
    return ValueError(f"{source}: {reason} in {len(rows)} of {len(bad)} rows (from 0): {', '.join(shown)}{more}")
