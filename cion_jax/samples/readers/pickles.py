"""Safe reading of pickled data sets, without running code in them.

Lists, tuples, dictionaries, text and numbers need no code. Beyond them a pickle may name NumPy arrays and scalars of
plain numbers, which this module replaces by its own classes; any other name is refused before it is looked up.
"""

import os
import pickle
from typing import Any

import numpy as np

from cion_jax.runtime.unpickling import NUMPY_SCALARS, NumpyType


class _Refused(ValueError):
    """The pickle names a class or function that is not allowed."""


class _Array:
    """Stand-in for `numpy.ndarray`; `np.asarray` converts it."""

    def __init__(self, *_):
        self._values = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, by_columns, content = state
        values = np.frombuffer(content, kind.dtype)
        self._values = values.reshape(shape, order="F" if by_columns else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._values, dtype=dtype, copy=copy)


def _from_buffer(content: bytes, kind: NumpyType, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", content))
    return array


# Names allowed in a pickle and their stand-ins; NumPy 2 renamed the modules.
_ALLOWED: dict[tuple[str, str], Any] = {
    **NUMPY_SCALARS,
    ("numpy", "ndarray"): _Array,
    **{(module, "_reconstruct"): _Array for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{(module, "_frombuffer"): _from_buffer for module in ("numpy.core.numeric", "numpy._core.numeric")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"it asks for {module}.{name}, which could run code; expected plain data and NumPy arrays")
        return _ALLOWED[module, name]


def read_pickle(path: str | os.PathLike) -> Any:
    """The plain data in a pickle file; its arrays are objects that `np.asarray` accepts.

    Raises:
        ValueError: no such file, a truncated or invalid pickle, or one that names anything that could run code.
    """
    try:
        with open(path, "rb") as file:
            return _Unpickler(file).load()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except _Refused as error:
        raise ValueError(f"{path}: refused, {error}") from None
    except Exception as error:  # invalid pickles can raise anything
        raise ValueError(f"{path}: no pickle, or cut off ({type(error).__name__}: {error}); copy it again") from error
