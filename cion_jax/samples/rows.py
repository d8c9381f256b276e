"""Conversion of table columns to int64 and text, with errors that name the offending rows."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute  # its functions are generated at import time, unknown to type checkers
EXAMPLES = 5  # number of offending rows that a message shows

# Every whole number below this has a float64 of its own; from here on, two ids may share one.
_EXACT = 2.0**53


class NotIntegers(ValueError):
    """Values that are no 64-bit integers: the mask `bad`, `[rows]` bool, and the reason."""

    def __init__(self, reason: str, bad: Any):
        super().__init__(reason)
        self.bad = np.asarray(bad)


def row_error(source: str, reason: str, bad: Any, values: pa.ChunkedArray | None = None) -> ValueError:
    """Error for the rows in the mask `bad`, with examples from the column `values`."""
    rows = np.flatnonzero(np.asarray(bad))
    shown = [
        f"row {row}" + ("" if values is None else f": {values[row].as_py()!r:.200}") for row in rows[:EXAMPLES].tolist()
    ]
    more = ", ..." if len(rows) > EXAMPLES else ""
    return ValueError(f"{source}: {reason} in {len(rows)} of {len(bad)} rows (from 0): {', '.join(shown)}{more}")


def integers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Integers, whole floating-point numbers, whole decimals or text of either, as int64; nulls stay.

    Raises:
        NotIntegers: fractions, infinity, text that is no number, values beyond int64, and floating-point numbers from
            2^53 on, where neighbouring integers have the same value.
    """
    if pa.types.is_floating(column.type):
        return _of_floats(column.cast(pa.float64()))
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _of_text(column)
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        bad = [not _fits(value) for value in column.to_pylist()]
        raise NotIntegers("no whole number of 64 bits", bad) from None


def utf8(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    """Text or bytes of any Arrow type as large_string; raises `ValueError` for invalid UTF-8."""
    try:
        text = column.cast(pa.large_string())
        text.validate(full=True)  # files may hold bytes that are no UTF-8 and say that they are text
        return text
    except pa.ArrowInvalid:
        values = column.cast(pa.large_binary())
        bad = [value is not None and not _is_utf8(value) for value in values.to_pylist()]
        raise row_error(source, f"column {name!r} holds text that is not UTF-8", bad, values) from None


def _of_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    column = pc.utf8_trim_whitespace(column)
    plain = pc.match_substring_regex(column, r"^[+-]?[0-9]+$")
    if not pc.all(plain).as_py():
        return pc.if_else(plain, _of_digits(pc.if_else(plain, column, "0")), _of_numerals(plain, column))
    return _of_digits(column)


def _of_digits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return pc.replace_substring_regex(column, r"^\+", "").cast(pa.int64())
    except pa.ArrowInvalid:
        bad = [value is not None and not _fits_text(value) for value in column.to_pylist()]
        raise NotIntegers("a number beyond 64 bits", bad) from None


def _of_numerals(plain: pa.ChunkedArray, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The rows of numbers such as "3.0" or "1e3"; 0 in the other rows, which are `plain`."""
    try:
        return _of_floats(pc.if_else(plain, "0", column).cast(pa.float64()))
    except pa.ArrowInvalid:
        bad = [value is not None and not _is_number(value) for value in column.to_pylist()]
        raise NotIntegers("no whole number", bad) from None


def _of_floats(column: pa.ChunkedArray) -> pa.ChunkedArray:
    values = column.to_numpy()
    missing = np.asarray(pc.is_null(column))
    whole = np.isfinite(values) & (np.rint(values) == values)
    if not (whole | missing).all():
        raise NotIntegers("no whole number", ~(whole | missing))
    if (inexact := ~missing & (np.abs(values) >= _EXACT)).any():
        raise NotIntegers(
            "a floating-point number above 2^53, where different ids become one (write it as an integer)", inexact
        )
    return column.cast(pa.int64())


def _fits(value: Any) -> bool:
    return value is None or (value == int(value) and -(2**63) <= int(value) < 2**63)


def _fits_text(digits: str) -> bool:
    return len(digits.lstrip("+-0")) < 20 and _fits(int(digits))  # Python refuses to convert thousands of digits


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
