"""Device mesh: a single data-parallel axis over all devices of all processes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"
Item = TypeVar("Item")


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh along `DATA_AXIS` of the given `jax.Device`s, by default all devices, ordered by process."""
    if devices is None:
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.asarray(devices), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Replicates `tree` on every device of the mesh; all processes must pass the same values."""
    sharding = NamedSharding(mesh, PartitionSpec())
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    # `device_put` would compare every array across processes, at the cost of a compilation and a round trip each.
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Shards this process's part of a batch over its devices along the leading axis; returns the global batch."""
    sharding = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def double_buffered(results: Iterable[Item]) -> Iterator[Item]:
    """Yields `results` with one element of look-ahead, so that devices and host work at the same time."""
    waiting: list[Item] = []
    for result in results:
        yield from waiting
        waiting = [result]
    yield from waiting
