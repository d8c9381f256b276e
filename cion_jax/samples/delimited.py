"""Sample tables in CSV and TSV files, compressed or not."""

import csv
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv

from cion_jax.runtime.progress import note
from cion_jax.samples.headers import sources_of_columns
from cion_jax.samples.rows import NotIntegers, integers, pc, row_error
from cion_jax.samples.table import INTEGER_COLUMNS

_HEADER_BYTES = 65536
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


class _Header(NamedTuple):
    names: list[str]
    lines: int  # lines up to and including the header
    delimiter: str


def read_delimited(path: Path) -> pa.Table:
    """The columns of a sample table in a file with a header line; `video` and `tracklet` are read as text.

    Columns are separated by commas (tabs for .tsv); semicolons, tabs and bars are recognised in the header. White
    space around names and values does not count.

    Raises:
        ValueError: no header with `file_path`, a repeated column, or values that are no integers where these are
            expected; names the rows.
        pa.ArrowInvalid: rows of unequal length, or text that is not UTF-8.
    """
    header = _header(path)
    columns = sources_of_columns(header.names, path)
    numbers = [name for name in columns if name in INTEGER_COLUMNS]
    try:
        table = _read(path, header, columns, integer_columns=numbers)
    except pa.ArrowInvalid:
        if not numbers:
            raise
        # Numbers such as "3.0" are read as text; so are those to be refused, to name all their rows.
        table = _read(path, header, columns, integer_columns=[])
    for index, name in enumerate(columns):
        if pa.types.is_string(table[name].type):
            table = table.set_column(index, name, _stripped(table[name], name, path))
            if name in numbers:
                table = table.set_column(index, name, _integers(table[name], name, path))
    return table


def _read(path: Path, header: _Header, columns: dict[str, int], *, integer_columns: list[str]) -> pa.Table:
    names = [str(index) for index in range(len(header.names))]  # the names in the file may be repeated
    types = {str(index): pa.int64() if name in integer_columns else pa.string() for name, index in columns.items()}
    convert = pyarrow.csv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=[""], strings_can_be_null=True
    )
    read = pyarrow.csv.ReadOptions(
        column_names=names,
        skip_rows=header.lines,
        use_threads=False,  # threaded errors do not name the row
    )
    parse = pyarrow.csv.ParseOptions(delimiter=header.delimiter)
    with pa.input_stream(str(path), compression="detect") as stream:
        table = pyarrow.csv.read_csv(stream, read_options=read, parse_options=parse, convert_options=convert)
    return table.rename_columns(list(columns))


def _header(path: Path) -> _Header:
    with pa.input_stream(str(path), compression="detect") as stream:
        start = stream.read(_HEADER_BYTES)
    whole_lines = start if len(start) < _HEADER_BYTES else start[: start.rfind(b"\n") + 1]
    lines = whole_lines.decode("utf-8-sig").splitlines(keepends=True)
    own = "\t" if ".tsv" in path.suffixes[-2:] else ","
    delimiters = dict.fromkeys([own, *_DELIMITERS])
    headers = [_parsed(path, lines, delimiter) for delimiter in delimiters]
    header = next((one for one in headers if "file_path" in map(str.strip, one.names)), headers[0])
    if header.delimiter != own:
        note(f"{path}: its columns are separated by {_DELIMITERS[header.delimiter]}")
    return header


def _parsed(path: Path, lines: list[str], delimiter: str) -> _Header:
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        names = next((row for row in reader if row), [])
    except csv.Error as error:
        raise ValueError(f"{path}: the header cannot be read ({error!s:.300})") from error
    return _Header(names, reader.line_num, delimiter)


def _stripped(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    """Without white space around values; quotes that stand after a space count as quotes."""
    stripped = pc.utf8_trim_whitespace(column)
    if stripped.equals(column):
        return column
    quoted = pc.match_substring_regex(column, r'^\s+"')
    if pc.any(quoted).as_py():
        stripped = pc.replace_substring_regex(stripped, r'^"([^"]*)"$', r"\1")
        broken = pc.and_(quoted, pc.match_substring(stripped, '"'))
        if pc.any(broken).as_py():
            raise row_error(str(path), f"column {name!r} has a quote after a space", broken, column)
    return pc.if_else(pc.equal(stripped, ""), None, stripped)


def _integers(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    try:
        return integers(column)
    except NotIntegers as error:
        raise row_error(str(path), f"column {name!r}, expected integers, holds {error}", error.bad, column) from None
