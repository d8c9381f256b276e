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
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def is_safetensors(path: str | os.PathLike) -> bool:
    return os.fspath(path).endswith(SUFFIX)


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads every tensor; bfloat16 as `ml_dtypes` has it.

    Raises:
        ValueError: no such file, truncated or corrupt, or a number format that models are not stored in.
    """
    try:
        entries = deserialize(Path(path).read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error}); copy or download it again") from None
    arrays = {}
    for key, entry in sorted(entries, key=lambda item: item[0]):
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{path}: {key} is {entry['dtype']}; read are {', '.join(_DTYPES)}")
        little = np.dtype(_DTYPES[entry["dtype"]]).newbyteorder("<")
        flat = np.frombuffer(bytes(entry["data"]), little)
        arrays[key] = flat.astype(little.newbyteorder("="), copy=False).reshape(entry["shape"])
    return arrays


def write_safetensors(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], model: str) -> None:
    """Writes `arrays`, and the name of the model as metadata, whole or not at all.

    One line of metadata only: the package writes several in random order, and the same content should make the
    same file.
    """
    with atomic_path(path) as temporary:
        save_file({key: np.asarray(value, order="C") for key, value in arrays.items()}, temporary, {"model": model})
