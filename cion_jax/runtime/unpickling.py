"""Reading of untrusted pickles without running anything that they name.

A pickle is a program that may call any function it names. Here every name is looked up in a table of substitutes;
what happens to other names is up to the caller: data sets refuse them, weight files replace them by placeholders.
"""

import os
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NoReturn

import numpy as np

Name = tuple[str, str]  # module and name


class RefusedPickle(ValueError):
    """The pickle asks for something that is not allowed."""


class Unpickler(pickle.Unpickler):
    """Unpickler that resolves names in `allowed` only.

    Args:
        file: the pickle, at the current position.
        path: the file that messages name.
        allowed: a substitute for every name that the pickle may use.
        unknown: called with module and name of any other name; returns a placeholder or raises `RefusedPickle`.
        persistent: called with every persistent id; None refuses them.
    """

    def __init__(
        self,
        file: BinaryIO,
        path: str | os.PathLike,
        allowed: Mapping[Name, Any],
        unknown: Callable[[str, str], Any],
        persistent: Callable[[Any], Any] | None = None,
    ):
        super().__init__(file)
        self._path, self._allowed, self._unknown, self._persistent = path, allowed, unknown, persistent

    def load(self) -> Any:
        """The next object in the file.

        Raises:
            ValueError: not a pickle, a damaged one, or one that asks for something that is not allowed.
        """
        try:
            return super().load()
        except RefusedPickle as error:
            raise RefusedPickle(f"{self._path}: refused, {error}") from None
        except Exception as error:  # bytes that are no pickle, or another one, can raise anything
            raise damaged(self._path, error) from error

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._allowed:
            return self._allowed[module, name]
        return self._unknown(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise pickle.UnpicklingError("a reference to an object outside the pickle")
        return self._persistent(pid)


def refuse_unknown(module: str, name: str) -> NoReturn:
    """For data sets, which consist of plain data and NumPy arrays."""
    raise RefusedPickle(f"it asks for {module}.{name}, which could run code; expected plain data and NumPy arrays")


def check_memo(file: BinaryIO, path: str | os.PathLike) -> None:
    """Checks that a pickle does not make the unpickler reserve memory for a memo far larger than the pickle.

    Python's unpickler keeps the memo in an array, which a single wrong index of 4 bytes extends to 32 GiB. The file's
    position stays.

    Raises:
        ValueError: such an index, or not a pickle.
    """
    start = file.tell()
    try:
        for opcode, index, _ in pickletools.genops(file):
            if opcode.name in ("PUT", "LONG_BINPUT") and int(index or 0) > file.tell():
                raise pickle.UnpicklingError(f"memo index {index} in its first {file.tell()} bytes")
    except Exception as error:  # as in Unpickler.load
        raise damaged(path, error) from error
    file.seek(start)


def damaged(path: str | os.PathLike, error: Exception) -> ValueError:
    reason = f"{type(error).__name__}: {error}"[:200]
    return ValueError(f"{path}: not a pickle, or a damaged one ({reason}); copy or download it again")


class Function:
    """A function that a pickle may call but, unlike a plain one, cannot set attributes of, such as its defaults."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"an attempt to set {name} of a function")


_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class _NumpyType:
    """Substitute for a `numpy.dtype`; `dtype` is None for all but booleans, integers and floats."""

    def __init__(self, code: str):
        self.code, self.dtype = code, np.dtype(code) if code in _NUMBERS else None

    def __setstate__(self, state: tuple) -> None:
        if self.dtype is not None and state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray:
    """Substitute for a `numpy.ndarray`; `np.asarray` converts it. `values` is None unless it holds numbers."""

    def __init__(self, code: str = "nothing"):
        self._code, self.values = code, None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, by_columns, content = state
        self._code = kind.code
        if kind.dtype is not None:
            values = np.frombuffer(content, kind.dtype)
            self.values = values.reshape(shape, order="F" if by_columns else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.values is None:
            raise ValueError(f"NumPy values of type {self._code!r}, expected numbers")
        return np.array(self.values, dtype=dtype, copy=copy)


def _from_buffer(content: bytes, kind: _NumpyType, shape: tuple, order: str) -> NumpyArray:
    array = NumpyArray()
    array.__setstate__((1, shape, kind, order == "F", content))
    return array


def _scalar(kind: _NumpyType, content: Any) -> Any:
    if kind.dtype is None:
        return NumpyArray(kind.code)
    return np.frombuffer(content, kind.dtype, count=1)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


# What pickles of NumPy arrays and scalars name; NumPy 2 renamed the modules.
NUMPY: dict[Name, Any] = {
    ("_codecs", "encode"): Function(_encode),
    ("numpy", "dtype"): Function(lambda code, *_: _NumpyType(code)),
    ("numpy", "ndarray"): Function(lambda *_: NumpyArray()),
    **{
        (f"numpy.{core}.{module}", name): Function(function)
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "scalar", _scalar),
            ("multiarray", "_reconstruct", lambda *_: NumpyArray()),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}
