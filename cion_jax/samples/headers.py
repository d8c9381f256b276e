"""The columns of a sample table among those of a file, with a note of names that only resemble them."""

import difflib
import os
import re
from collections.abc import Collection, Sequence

import pyarrow as pa

from cion_jax.runtime.progress import note
from cion_jax.samples.table import COLUMNS

IDENTITY_OF_ANNOTATIONS = "id"  # CION-AL and SYNTH-PEDES
KEYS = (*COLUMNS, IDENTITY_OF_ANNOTATIONS)
_LONGEST = 40  # characters of a name that is meant for people; files that are something else have names of any length
# Names in use that difflib does not find similar enough.
_SYNONYMS = {"file": "file_path", "filename": "file_path", "image": "file_path", "path": "file_path"} | {
    "pid": "identity",
    "label": "identity",
}


def sources_of_columns(names: Sequence[str], source: str | os.PathLike) -> dict[str, int]:
    """Maps the columns of a sample table to their indices in a file's header `names`, in the order of the header.

    White space around names does not count. Without a column `identity`, `id` is taken for it. Names that resemble a
    column that is not there are reported.

    Raises:
        ValueError: no `file_path`, or a column that is there twice.
    """
    stripped = [name.strip() for name in names]
    if repeated := [name for name in KEYS if stripped.count(name) > 1]:
        raise ValueError(f"{source}: column {repeated[0]!r} appears more than once in {_listed(names)}; keep one")
    found = {name: index for index, name in enumerate(stripped) if name in KEYS}
    similar = _similar(stripped, found)
    if "file_path" not in found:
        hint = f"; rename {similar['file_path']!r} if it is meant" if "file_path" in similar else ""
        raise ValueError(f"{source}: no column 'file_path' (columns found: {_listed(names) or 'none'}){hint}")
    identity = found.pop(IDENTITY_OF_ANNOTATIONS, None)
    if identity is not None and "identity" not in found:
        found["identity"] = identity
    if similar:
        pairs = ", ".join(f"{name!r} (for {column!r}?)" for column, name in similar.items())
        note(f"{source}: no column of a sample table, rename if it is meant: {pairs}")
    return dict(sorted(found.items(), key=lambda item: item[1]))


def without_empty_columns(table: pa.Table, source: str | os.PathLike) -> pa.Table:
    """Drops optional columns that hold no value in any row, as writers of data frames leave them."""
    empty = [
        name for name in COLUMNS[1:] if name in table.column_names and 0 < table.num_rows == table[name].null_count
    ]
    if empty:
        note(f"{source}: columns without any value are left out: {', '.join(empty)}")
    return table.drop_columns(empty)


def _similar(names: Sequence[str], found: Collection[str]) -> dict[str, str]:
    """The first name that resembles each column that was not `found`."""
    absent = {re.sub("[^a-z]", "", column): column for column in COLUMNS if column not in found}
    if IDENTITY_OF_ANNOTATIONS in found:
        absent.pop("identity", None)
    similar: dict[str, str] = {}
    for name in names:
        if len(name) > _LONGEST:
            continue
        plain = re.sub("[^a-z]", "", name.lower())
        stem = re.sub("(id|ids|no|number|nr|index|idx)$", "", plain)
        column = _SYNONYMS.get(plain) or next(
            (absent[match] for match in difflib.get_close_matches(stem, absent, 1, 0.75)), None
        )
        if column and name not in KEYS and column in absent.values():
            similar.setdefault(column, name)
    return similar


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..." for name in names[:20])
    return shown + (f", ... {len(names) - 20} more" if len(names) > 20 else "")
