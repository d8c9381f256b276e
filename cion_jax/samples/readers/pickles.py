"""Safe reading of pickled data sets, without running code in them.

Lists, tuples, dictionaries, text and numbers need no code. Beyond them a pickle may name NumPy arrays and scalars of
plain numbers; any other name is refused.
"""

import os
from typing import Any

from cion_jax.runtime.unpickling import NUMPY, Unpickler, refuse_unknown


def read_pickle(path: str | os.PathLike) -> Any:
    """The plain data in a pickle file; its arrays are objects that `np.asarray` accepts.

    Raises:
        ValueError: no such file, a truncated or invalid pickle, or one that names anything that could run code.
    """
    try:
        with open(path, "rb") as file:
            return Unpickler(file, path, NUMPY, refuse_unknown).load()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
