"""Result type of the readers, and parsing of names."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cion_jax.samples.table import EXAMPLES, SampleTable, pc


class Reading(NamedTuple):
    """A data set as a sample table, and the number of items left out, by reason."""

    samples: SampleTable
    left_out: dict[str, int] = {}


def parse_names(names: pa.Array | pa.ChunkedArray, pattern: str, source: str, expected: str) -> dict[str, pa.Array]:
    """The named groups of `pattern` as text columns; every name must match it in full.

    Raises:
        ValueError: a name does not match; the message gives its `source` and the `expected` form.
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
    """Text of digits, with or without leading zeros, as int64."""
    return column.cast(pa.int64())
