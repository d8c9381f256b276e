"""Reading and writing sample tables.

    .parquet            native format; every column is kept
    .json               list of objects, such as CION-AL and SYNTH-PEDES annotations (`id`, `file_path`)
    .jsonl, .ndjson     one object per line
    .csv, .tsv          with a header line; `video` and `tracklet` are read as text, so that "007" stays "007"
    folder              all images in it and its subfolders; `file_path` only

The text formats may be compressed (.csv.gz) and keep only the columns of the sample table.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from cion_jax.runtime.file_kinds import refuse_other_kinds
from cion_jax.runtime.files import atomic_path
from cion_jax.samples.delimited import read_delimited
from cion_jax.samples.headers import sources_of_columns, without_empty_columns
from cion_jax.samples.json_records import read_json_lines, read_json_list
from cion_jax.samples.stores.folder import read_folder
from cion_jax.samples.table import SampleTable

ROWS_PER_WRITE = 65536


def read_samples(path: str | os.PathLike) -> SampleTable:
    """Reads and validates a sample table; the format follows from the extension. A folder is listed.

    Names of columns that resemble the table's, and columns without values, are reported on the console.

    Raises:
        ValueError: a missing, truncated or malformed file, or invalid content; names the file and the rows.
    """
    path = Path(path)
    try:
        table = read_folder(path) if path.is_dir() else _read_file(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read, broken or truncated ({error!s:.300})") from error
    table = SampleTable(without_empty_columns(table, path), source=str(path))
    pa.default_memory_pool().release_unused()  # Arrow keeps what reading and checking took: 0.8 GB for 10 M rows
    return table


def _read_file(path: Path) -> pa.Table:
    extensions = [extension.lower() for extension in path.suffixes]
    compressed = extensions[-1:] == [".gz"]
    extension = "".join(extensions[-2:-1] if compressed else extensions[-1:])
    if extension not in _READERS or (compressed and extension == ".parquet"):
        raise ValueError(f"{path}: unknown extension {path.suffix!r}, expected one of {', '.join(_READERS)}")
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    refuse_other_kinds(path, "gzip" if compressed else extension.removeprefix("."))
    return _READERS[extension](path)


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
    file = pyarrow.parquet.ParquetFile(path)
    names = file.schema_arrow.names
    columns = sources_of_columns(names, path)
    found = {index: column for column, index in columns.items()}
    return file.read().rename_columns([found.get(index, name) for index, name in enumerate(names)])


_READERS: dict[str, Callable[[Path], pa.Table]] = {
    ".parquet": _read_parquet,
    ".json": read_json_list,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_delimited,
    ".tsv": read_delimited,
}
