"""Distribution of the work over devices and processes.

Work is cut into items before it is shared, the same way everywhere; each process takes every P-th item and splits
them over its own devices; results are gathered at the end of every step. They do not depend on the distribution.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from cion_jax.runtime.mesh import DATA_AXIS, make_mesh

Item = TypeVar("Item")
# Progress display: `track(total)` is a context manager that gives `advance(count)`.
Track = Callable[[int], AbstractContextManager[Callable[[int], None]]]


def own_devices() -> Mesh:
    """The devices of this process, along `DATA_AXIS`."""
    return make_mesh(jax.local_devices())


def own_share(items: Sequence[Item]) -> Sequence[Item]:
    """The items that fall to this process."""
    return items[jax.process_index() :: jax.process_count()]


def split_over_devices(function: Callable[[Any, Any], Any], mesh: Mesh) -> Callable[[Any, Any], Any]:
    """`function(shared, items)` jitted: each device of `mesh` works on its part of the items' leading axis."""
    whole, split = PartitionSpec(), PartitionSpec(DATA_AXIS)
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False))


def padded_to_devices(mesh: Mesh, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arrays with zeros after their first axis, which the devices of `mesh` then divide evenly."""
    count = mesh.size * bucketed(-(-len(arrays[0]) // mesh.size))
    return tuple(padded_to(count, array) for array in arrays)


def padded_to(count: int, array: np.ndarray) -> np.ndarray:
    """`array` with zeros after its first axis, `[count, ...]`."""
    if len(array) == count:
        return array
    return np.concatenate([array, np.zeros((count - len(array), *array.shape[1:]), array.dtype)])


def bucketed(count: int) -> int:
    """The next of the few counts that programs are compiled for: eight to an octave."""
    step = 2 ** max((count - 1).bit_length() - 4, 0)
    return 2 ** (count - 1).bit_length() if count <= 8 else -(-count // step) * step
