"""The return type of readers, and their parsing of file names."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cion_jax.samples.table import EXAMPLES, SampleTable, pc


class Reading(NamedTuple):
    """A data set as a sample table, and how much of it was left out, by the reason."""

    samples: SampleTable
    left_out: dict[str, int] = {}


def parse_names(names: pa.Array | pa.ChunkedArray, pattern: str, source: str, expected: str) -> dict[str, pa.Array]:
    """The named groups of `pattern`, one column of text each, in names that all match it from end to end.

    Raises:
      ValueError: some do not; `source` says where they are and `expected` what they should be.
    """
    parsed = pc.extract_regex(names, f"^(?:{pattern})$")
    parsed = parsed.combine_chunks() if isinstance(parsed, pa.ChunkedArray) else parsed
    bad = np.flatnonzero(np.asarray(parsed.is_null()))
    if bad.size:
        examples = ", ".join(f"{names[row].as_py()!r}" for row in bad[:EXAMPLES].tolist())
        more = ", ..." if bad.size > EXAMPLES else ""
        raise ValueError(f"{source}: {bad.size} of {len(names)} names are not {expected}: {examples}{more}")
    return {field.name: parsed.field(index) for index, field in enumerate(parsed.type)}


def integers(column: pa.Array) -> pa.Array:
    """Digits, with leading zeros or without, as int64."""
    return column.cast(pa.int64())
