"""Devices and processes: one data axis over everything there is."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"
Item = TypeVar("Item")


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """All devices of all processes, process by process, or the `jax.Device`s given, along `DATA_AXIS`."""
    if devices is None:
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.asarray(devices), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The same values on every device of the mesh; all processes must bring the same."""
    sharding = NamedSharding(mesh, PartitionSpec())
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    # `device_put` would compare every array across processes, a compilation and a round trip each.
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Splits this process's part of a batch (leading axis) over its devices; the result is the global batch."""
    sharding = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def double_buffered(results: Iterable[Item]) -> Iterator[Item]:
    """Asks for a result before it gives the one before away, so that devices work while the host does."""
    waiting: list[Item] = []
    for result in results:
        yield from waiting
        waiting = [result]
    yield from waiting
