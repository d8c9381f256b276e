"""Reading and writing sample tables.

    .parquet   native format; every column is kept
    .json      list of objects, such as CION-AL and SYNTH-PEDES annotations (`id`, `file_path`)
    .jsonl     one object per line
    .csv       with a header line; `video` and `tracklet` are read as text, so that "007" stays "007"
    folder     all images in it and its subfolders; `file_path` only

The three text formats keep only the columns of the sample table.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from cion_jax.runtime.files import atomic_path, read_json
from cion_jax.samples.stores.folder import read_folder
from cion_jax.samples.table import COLUMNS, INTEGER_COLUMNS, SampleTable

ROWS_PER_WRITE = 65536


def read_samples(path: str | os.PathLike) -> SampleTable:
    """Reads and validates a sample table; the format follows from the extension. A folder is listed.

    Raises:
        ValueError: a missing, truncated or malformed file, or invalid content; names the file and the rows.
    """
    path = Path(path)
    reader = read_folder if path.is_dir() else _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: unknown extension {path.suffix!r}, expected one of {', '.join(_READERS)}")
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    try:
        table = reader(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: cannot be read, broken or truncated ({error})") from error
    table = SampleTable(table, source=str(path))
    pa.default_memory_pool().release_unused()  # Arrow keeps what reading and checking took: 0.8 GB for 10 M rows
    return table


def read_rows(path: str | os.PathLike, rows: np.ndarray, columns: Sequence[str] | None = None) -> pa.Table:
    """Some rows (distinct, ascending) of a Parquet sample table; only the row groups that hold them are read."""
    file = pyarrow.parquet.ParquetFile(path)
    ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
    owner = np.searchsorted(ends, rows, side="right")
    names = list(columns or file.schema_arrow.names)
    parts = [file.schema_arrow.empty_table().select(names)]
    for group in np.unique(owner).tolist():
        start = ends[group] - file.metadata.row_group(group).num_rows
        parts.append(file.read_row_group(group, columns=names).take(pa.array(rows[owner == group] - start)))
    return pa.concat_tables(parts)


def write_samples(table: SampleTable, path: str | os.PathLike) -> None:
    """Writes the table as Parquet, atomically."""
    if Path(path).suffix.lower() != ".parquet":
        raise ValueError(f"{path}: sample tables are written as Parquet, give a name that ends in .parquet")
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(table.arrow, temporary, compression="zstd")


def write_annotations(table: SampleTable, path: str | os.PathLike) -> None:
    """Writes CION-AL annotations, a JSON list of `{"id": identity, "file_path": path}` in table order.

    Discarded rows (identity -1) are left out.

    Raises:
        ValueError: no column `identity`, or all rows are discarded.
    """
    kept = table["identity"] >= 0
    if not kept.any():
        raise ValueError(f"{path}: every row is discarded (identity -1), there is nothing to annotate")
    arrow = table.select(kept).arrow.select(["identity", "file_path"]).rename_columns(["id", "file_path"])
    with atomic_path(path) as temporary, open(temporary, "w") as file:
        separator = "[\n"
        for batch in arrow.to_batches(max_chunksize=ROWS_PER_WRITE):
            file.write(separator + ",\n".join(map(json.dumps, batch.to_pylist())))
            separator = ",\n"
        file.write("\n]\n")


def _read_parquet(path: Path) -> pa.Table:
    return pyarrow.parquet.read_table(path)


def _read_json_list(path: Path) -> pa.Table:
    records = read_json(path, object_hook=_without_other_values)
    if not isinstance(records, list):
        raise ValueError(f"{path}: holds a JSON {type(records).__name__}, expected a list of objects")
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{path}: row {row} (from 0) is {record!r:.80}, expected an object")
    first = records[0] if records else {}
    _check_names(path, first)
    keys = {name: name for name in COLUMNS if name in first}
    if "identity" not in first and "id" in first:
        keys["identity"] = "id"
    return pa.table(
        {name: _json_column(path, key, [record.get(key) for record in records]) for name, key in keys.items()}
    )


def _without_other_values(record: dict) -> dict:
    """Drops other values while parsing: captions of millions of images would fill memory."""
    return {name: value if name in COLUMNS or name == "id" else None for name, value in record.items()}


def _json_column(path: Path, key: str, values: list) -> pa.Array:
    try:
        return pa.array(values)
    except pa.ArrowException as error:
        raise ValueError(f"{path}: key {key!r} holds values of more than one type ({error})") from error


def _read_json_lines(path: Path) -> pa.Table:
    with open(path) as file:
        first = json.loads(file.readline() or "null")
    if not isinstance(first, dict):
        raise ValueError(f"{path}: line 1 is {first!r:.80}, expected an object")
    _check_names(path, first)
    # With an explicit schema, a video named "2024-05-01" stays text and other keys are skipped.
    names = [name for name in COLUMNS if name in first]
    schema = pa.schema([(name, _json_type(name, first[name])) for name in names])
    parse = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    # Errors count rows within a block, so read one block, up to the largest that Arrow allows.
    read = pyarrow.json.ReadOptions(use_threads=False, block_size=min(path.stat().st_size + 1, 2**31 - 1))
    return pyarrow.json.read_json(path, read_options=read, parse_options=parse)


def _json_type(name: str, value: Any) -> pa.DataType:
    if name in INTEGER_COLUMNS or (name != "file_path" and isinstance(value, int)):
        return pa.int64()
    return pa.string()


def _read_csv(path: Path) -> pa.Table:
    types = {name: pa.int64() if name in INTEGER_COLUMNS else pa.string() for name in COLUMNS}
    convert = pyarrow.csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True)
    read = pyarrow.csv.ReadOptions(use_threads=False)  # threaded errors do not name the row
    table = pyarrow.csv.read_csv(path, read_options=read, convert_options=convert)
    _check_names(path, table.column_names)
    return table.select([name for name in table.column_names if name in COLUMNS])


def _check_names(path: Path, names: Iterable[str]) -> None:
    """Requires `file_path`, while the names of all columns are known, ignored ones included."""
    if "file_path" not in names:
        raise ValueError(f"{path}: no column 'file_path' (columns found: {', '.join(names) or 'none'})")


_READERS: dict[str, Callable[[Path], pa.Table]] = {
    ".parquet": _read_parquet,
    ".json": _read_json_list,
    ".jsonl": _read_json_lines,
    ".csv": _read_csv,
}
