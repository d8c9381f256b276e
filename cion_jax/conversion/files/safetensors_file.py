"""safetensors files: names and arrays, no code, a line of metadata."""

import os
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save_file

from cion_jax.runtime.files import atomic_path

SUFFIX = ".safetensors"

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "C64": np.complex64,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def is_safetensors(path: str | os.PathLike) -> bool:
    """True if the name ends in `.safetensors`, in upper or lower case."""
    return os.fspath(path).lower().endswith(SUFFIX)


def holds_safetensors(path: str | os.PathLike) -> bool:
    """Whether the file starts as safetensors do: the length of its header in 8 bytes, then the header, JSON."""
    with open(path, "rb") as file:
        start = file.read(9)
        size = os.fstat(file.fileno()).st_size
    return start[8:] == b"{" and 8 + int.from_bytes(start[:8], "little") <= size


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads every tensor; number formats that NumPy lacks are those of `ml_dtypes`.

    Raises:
        ValueError: truncated or corrupt, or a number format that models are not stored in.
    """
    try:
        entries = deserialize(Path(path).read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error}); copy or download it again") from None
    return {key: _array(entry, f"{path}: {key}") for key, entry in sorted(entries, key=lambda item: item[0])}


def _array(entry: Mapping, name: str) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{name} is {entry['dtype']}; formats that are read: {', '.join(_DTYPES)}")
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    flat = np.frombuffer(bytes(entry["data"]), dtype.newbyteorder("<"))
    try:
        return flat.astype(dtype, copy=False).reshape(entry["shape"])
    except ValueError as error:  # such as [0, 2**63], whose count safetensors accepts
        raise ValueError(f"{name} has an impossible shape ({error}); copy or download the file again") from None


def write_safetensors(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], model: str) -> None:
    """Writes `arrays`, and the name of the model as metadata, atomically.

    One line of metadata only: the package writes several in random order, and the same content should make the
    same file.
    """
    with atomic_path(path) as temporary:
        save_file({key: np.asarray(value, order="C") for key, value in arrays.items()}, temporary, {"model": model})
