"""On-disk arrays that may be larger than memory."""

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np


class ArrayWriter:
    """Writes an `.npy` file row by row: NumPy pads the header so that the row count can be filled in later."""

    def __init__(self, file: BinaryIO, dtype: np.dtype):
        self._file, self._dtype = file, dtype
        self._rows = self._columns = 0

    def append(self, block: np.ndarray) -> None:
        """Appends a block `[rows, columns]`; `columns` must be the same in every call."""
        if not self._columns:
            self._columns = block.shape[1]
            self._write_header()
        self._file.write(block.astype(self._dtype, copy=False).tobytes())
        self._rows += len(block)

    def finish(self) -> None:
        """Writes the final number of rows into the header; call once, after the last block."""
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._rows, self._columns)}
        np.lib.format.write_array_header_1_0(self._file, header)


class StackedArray:
    """Rows of several arrays `[rows, columns]` as one array, read where they are when they are asked for.

    Supports what correlation needs: `len`, `shape`, `ndim`, `dtype`, and indexing by a slice or an integer array.
    float64 is rounded to float32 as it is read; what float32 cannot hold becomes infinite, which correlation refuses.
    """

    ndim = 2

    def __init__(self, parts: Sequence[np.ndarray], rows: Sequence[np.ndarray | None] | None = None):
        """`parts` are arrays of equally many columns; `rows` are those taken of each, None = all."""
        columns = {part.shape[1] for part in parts}
        if len(columns) != 1:
            raise ValueError(f"arrays of {sorted(columns)} columns; expected one or more of the same number of columns")
        self._parts, self._rows = list(parts), list(rows or [None] * len(parts))
        stored = np.result_type(*(part.dtype for part in parts))
        self.dtype = np.dtype(np.float32) if stored == np.float64 else stored
        lengths = [len(part if rows is None else rows) for part, rows in zip(self._parts, self._rows)]
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        self.shape = int(self._ends[-1]), columns.pop()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        rows = np.asarray(rows)
        taken = np.empty((*rows.shape, self.shape[1]), self.dtype)
        owner = np.searchsorted(self._ends, rows, side="right")
        for index in np.unique(owner):
            here = owner == index
            inside, own = rows[here] - self._starts[index], self._rows[index]
            with np.errstate(over="ignore"):
                taken[here] = self._parts[index][inside if own is None else own[inside]]
        return taken


# Rows that correlation reads from disk: one file, or several as if they were one.
RowArray = np.ndarray | StackedArray
