"""Safe substitutes for NumPy scalars in untrusted pickles, which are read with an allow-list of names."""

import pickle
from typing import Any

import numpy as np

_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class NumpyType:
    """Substitute for `numpy.dtype` that accepts numeric types only."""

    def __init__(self, code: str, *_):
        if code not in _NUMBERS:
            raise pickle.UnpicklingError(f"NumPy values of type {code!r}, expected numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in "<>":
            self.dtype = self.dtype.newbyteorder(state[1])


def _scalar(kind: NumpyType, content: bytes) -> Any:
    return np.frombuffer(content, kind.dtype, count=1)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


# Allowed names in a pickle of NumPy scalars, with their substitutes; NumPy 2 renamed the module.
NUMPY_SCALARS: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): NumpyType,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}
