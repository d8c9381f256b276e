"""Weight files of any known format, recognised by their content: people rename them."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cion_jax.conversion.files.pth import read_pth
from cion_jax.conversion.files.safetensors_file import holds_safetensors, is_safetensors, read_safetensors
from cion_jax.runtime.file_kinds import kind_of, refuse_other_kinds


def read_tensors(path: str | os.PathLike, select: Callable[[Any], Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Reads the tensors that `select` picks from a `.pth` or `.safetensors`, whatever its name.

    Raises:
        ValueError: no such file, another kind of file, truncated, corrupt, or a pickle that is refused.
    """
    try:
        if holds_safetensors(path):
            return dict(select(read_safetensors(path)))
        refuse_other_kinds(path, "zip", "pickle")
        if kind_of(path) is not None:
            return read_pth(path, select)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: a folder, expected a .pth or .safetensors file") from None
    if is_safetensors(path):
        return dict(select(read_safetensors(path)))  # which says what is wrong with it
    raise ValueError(
        f"{path}: not a weight file: neither of torch.save (a ZIP archive or a pickle) nor safetensors; "
        "copy or download it again"
    )
