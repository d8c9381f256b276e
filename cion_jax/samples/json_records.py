"""Sample tables in JSON lists, such as CION-AL's annotations, and in JSON lines; compressed or not."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json

from cion_jax.samples.headers import KEYS, sources_of_columns
from cion_jax.samples.table import COLUMNS, INTEGER_COLUMNS

_BOM = b"\xef\xbb\xbf"
_KEYS = frozenset(KEYS)
_SPACE = re.compile(r"[ \t\n\r]*")
# pyarrow 26 crashes on a line `null`; a null inside an object has a comma or a bracket behind it.
_NULL = re.compile(rb"null\s*+(?![,}\]])|(?:\A|[\n}\]])\s*+null")


def read_json_list(path: Path) -> pa.Table:
    """The columns of a sample table in a JSON list of objects; other keys are ignored.

    Raises:
        ValueError: no JSON, no list of objects, a repeated key, or values of mixed types; names the row, from 0.
    """
    names: dict[str, None] = {}
    try:
        records = json.loads(_content(path), object_pairs_hook=_Hook(names))
    except RecursionError:
        raise ValueError(f"{path}: lists or objects are nested too deeply to be read") from None
    except ValueError as error:  # among them, numbers of more digits than Python converts
        lines = "; it looks like JSON lines, whose name ends in .jsonl" if "Extra data" in str(error) else ""
        raise ValueError(
            f"{path}: not a JSON file ({error!s:.300}){lines}; it may be truncated, write it again"
        ) from error
    if not isinstance(records, list):
        hint = " (pandas: orient='records')" if isinstance(records, dict) else ""
        raise ValueError(f"{path}: holds a JSON {type(records).__name__}, expected a list of objects{hint}")
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{path}: row {row} (from 0) is {record!r:.80}, expected an object")
    return _table(path, records, list(names))


def read_json_lines(path: Path) -> pa.Table:
    """The columns of a sample table in a file with an object per line; other keys are ignored.

    Raises:
        ValueError: a line that is no object, a repeated key, or values of mixed types; names the line or the row.
    """
    data = _content(path).removeprefix(_BOM)
    table = _read_plain_lines(path, data)
    return _read_all_lines(path, data) if table is None else table


class _Hook:
    """Keeps the values of a sample table's columns while parsing: captions of millions of images would fill memory.

    All keys are added to `names`, as a set in order of appearance.
    """

    def __init__(self, names: dict[str, None]):
        self._names = names

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"key {repeated!r} is twice in an object")
        if not record.keys() <= self._names.keys():
            self._names.update(dict.fromkeys(record))
        return record if record.keys() <= _KEYS else {key: record[key] for key in KEYS if key in record}


def _content(path: Path) -> bytes:
    with pa.input_stream(str(path), compression="detect") as stream:
        return stream.read()


def _read_plain_lines(path: Path, data: bytes) -> pa.Table | None:
    """Fast reading of lines of the same form as the first; None for any others."""
    try:
        first = json.loads(data[: data.find(b"\n") + 1] or data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(first, dict) or "file_path" not in first or (b"null" in data and _NULL.search(data)):
        return None
    # With an explicit schema, a video named "2024-05-01" stays text and other keys are skipped.
    schema = pa.schema([(name, _type(name, first.get(name))) for name in KEYS])
    parse = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = pyarrow.json.read_json(pa.BufferReader(data), parse_options=parse)
        table.validate(full=True)
    except pa.ArrowException:
        return None
    found = {name for name in KEYS if table[name].null_count < table.num_rows}
    return _renamed(table, path, [*first, *(found - first.keys())])


def _type(name: str, value: Any) -> pa.DataType:
    is_label = name not in (*INTEGER_COLUMNS, "id")
    return pa.string() if is_label and (name == "file_path" or type(value) is not int) else pa.int64()


def _read_all_lines(path: Path, data: bytes) -> pa.Table:
    names: dict[str, None] = {}
    try:
        text = data.decode()
        records = list(_records(path, text, json.JSONDecoder(object_pairs_hook=_Hook(names))))
    except RecursionError:
        raise ValueError(f"{path}: lists or objects are nested too deeply to be read") from None
    return _table(path, records, list(names))


def _records(path: Path, text: str, decoder: json.JSONDecoder) -> Iterable[dict]:
    position = _skip_space(text, 0)
    while position < len(text):
        start = position
        try:
            record, position = decoder.raw_decode(text, position)
        except ValueError as error:
            line = text.count("\n", 0, getattr(error, "pos", start)) + 1
            raise ValueError(f"{path}: cannot be read, broken or truncated in line {line} ({error!s:.300})") from error
        if not isinstance(record, dict):
            raise ValueError(
                f"{path}: line {text.count(chr(10), 0, start) + 1} is {record!r:.80}, expected an object (a JSON list "
                "is read from a name that ends in .json)"
            )
        yield record
        position = _skip_space(text, position)


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match
    return match.end()


def _table(path: Path, records: Sequence[dict], names: Sequence[str]) -> pa.Table:
    columns = {key: _column(path, key, [record.get(key) for record in records]) for key in KEYS if key in names}
    return _renamed(pa.table(columns), path, names)


def _renamed(table: pa.Table, path: Path, names: Sequence[str]) -> pa.Table:
    columns = {column: names[index] for column, index in sources_of_columns(names, path).items()}
    if spaced := [key for key in columns.values() if key not in KEYS]:
        raise ValueError(f"{path}: key {spaced[0]!r} has white space around it; remove it")
    return pa.table({column: table[columns[column]] for column in COLUMNS if column in columns})


def _column(path: Path, key: str, values: list) -> pa.Array | pa.ChunkedArray:
    try:
        if bool not in set(map(type, values)):  # Arrow takes True for 1.0 among fractions
            return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        pass
    row = _first_misfit(values)
    raise ValueError(
        f"{path}: key {key!r} holds values of more than one type, numbers beyond 64 bits or invalid text, first in row "
        f"{row} (from 0): {values[row]!r:.80}"
    )


def _first_misfit(values: list) -> int:
    """The first row that is no string or number, or not of the type of the rows before it."""
    kind = None
    for row, value in enumerate(values):
        try:
            if isinstance(value, bool):
                return row
            kind = pa.scalar(value, kind).type if value is not None else kind
        except (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError):
            return row
    return 0
