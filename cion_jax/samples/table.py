r"""Sample table: one row per person crop, validated once, at construction.

Columns:

    file_path   string, required    path relative to the image root, unique; "\" is a separator and becomes "/"
    video       string or integer   source video (or camera recording) of the crop
    tracklet    string or integer   unique within its video
    frame       integer             frame number within the video
    identity    integer             training label; -1 = discarded
    person      integer             true person, if known; only used to score identities

Other columns are kept unchanged. The columns above may have no missing values. Whole floating-point numbers below 2^53
are taken for the integers that they are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cion_jax.samples.rows import EXAMPLES, NotIntegers, integers, pc, row_error, utf8

__all__ = ["COLUMNS", "EXAMPLES", "INTEGER_COLUMNS", "LABEL_COLUMNS", "SampleTable", "pc"]

INTEGER_COLUMNS = ("frame", "identity", "person")
LABEL_COLUMNS = ("video", "tracklet")
COLUMNS = ("file_path", *LABEL_COLUMNS, *INTEGER_COLUMNS)

_TYPES = pa.types
_TEXT_TYPES = (
    *(_TYPES.is_string, _TYPES.is_large_string, _TYPES.is_string_view),
    *(_TYPES.is_binary, _TYPES.is_large_binary, _TYPES.is_binary_view, _TYPES.is_fixed_size_binary),
)
_NUMBER_TYPES = (_TYPES.is_integer, _TYPES.is_floating, _TYPES.is_decimal)

_REFUSED = {
    r"^$": "file_path is empty",
    r"\x00": "file_path has a NUL character",
    r"^/|^[A-Za-z]:": "file_path is absolute, it must be relative to the image root",
    r"(^|/)\.\.(/|$)": "file_path has a '..', it must stay inside the image root",
}
_UNTIDY = r"//|(^|/)\./"  # other spellings of a path


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
            raise ValueError(f"column {name!r}: values of more than one type ({error!s:.300})") from error
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
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_floating(kind):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), None, column)  # pandas writes missing integers as NaN
    if column.null_count:
        remedy = " (-1 discards a row)" if name == "identity" else ""
        raise row_error(source, f"column {name!r} has no value{remedy}", pc.is_null(column))
    if name not in INTEGER_COLUMNS and any(is_text(kind) for is_text in _TEXT_TYPES):
        column = utf8(column, name, source)
        return pc.replace_substring(column, "\\", "/") if name == "file_path" else column
    if name == "file_path" or not any(is_number(kind) for is_number in _NUMBER_TYPES):
        expected = {"file_path": "strings"} | dict.fromkeys(LABEL_COLUMNS, "strings or integers")
        raise ValueError(f"{source}: column {name!r} holds {kind}, expected {expected.get(name, 'integers')}")
    try:
        numbers = integers(column)
    except NotIntegers as error:
        raise row_error(source, f"column {name!r}, expected integers, holds {error}", error.bad, column) from None
    if name == "identity" and pc.min(numbers).as_py() < -1:
        raise row_error(source, "identity below -1 (-1 = discarded)", pc.less(numbers, -1), numbers)
    return numbers


def _check_paths(paths: pa.ChunkedArray, source: str) -> None:
    plain = paths
    if _matches(paths, "|".join((_UNTIDY, *_REFUSED))):  # one pass over what is nearly always in order
        for pattern, reason in _REFUSED.items():
            if _matches(paths, pattern):
                raise row_error(source, reason, pc.match_substring_regex(paths, pattern), paths)
        plain = pc.replace_substring_regex(plain, "/+", "/")
        plain = pc.replace_substring_regex(plain, r"(^|/)(\./)+", r"\1")
    if pc.count_distinct(plain).as_py() != len(plain):
        codes = _codes(plain)
        raise row_error(source, "file_path appears more than once", np.bincount(codes)[codes] > 1, paths)


def _matches(column: pa.ChunkedArray, pattern: str) -> bool:
    return pc.any(pc.match_substring_regex(column, pattern)).as_py()
