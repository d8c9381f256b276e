"""On-disk arrays that may be larger than memory."""

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
