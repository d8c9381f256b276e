"""Comparing long lists of vectors tile by tile, so that no array of all pairs ever exists.

Each row is compared with a *window* of columns. Rows and windows are cut into tiles; a device takes the products
of a tile, decides about each pair, and goes on to the next. Only pairs that may be close leave the device.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cion_jax.correlation import rounding
from cion_jax.correlation.centroids import Vectors
from cion_jax.correlation.distances import similarities
from cion_jax.correlation.padding import padded_batches
from cion_jax.correlation.workers import (
    Track,
    one_ahead,
    own_devices,
    own_share,
    padded_to_devices,
    replicated,
    roomy,
    split_over_devices,
)

BATCH_BYTES = 16 * 2**20  # verdicts that leave a device at once
_APART, _CLOSE, _DOUBTFUL = 0, 1, 2
_FEWEST_ROWS = 64  # that programs are compiled for
_FLAT = 2.25  # a tile along a narrow band is at most so many blocks wide


def block() -> int:
    """The longest side of most tiles: their products fit into the cache of a CPU, and fill a GPU."""
    return 512 if jax.default_backend() == "cpu" else 2048


class Windows(NamedTuple):
    """What every row is compared with, arrays `[rows]` int32: columns from `low` up to `high`, but for `skip`.

    Both bounds rise from row to row within a segment.
    """

    low: Any
    high: Any
    skip: Any

    @staticmethod
    def within(lengths: np.ndarray, half_width: int) -> "Windows":
        """Rows are the columns, in segments of these `lengths`: each with those after it, up to `half_width` on."""
        row = np.arange(lengths.sum(), dtype=np.int64)
        ends = np.repeat(np.cumsum(lengths), lengths)
        high = np.minimum(row + half_width + 1, ends)
        return Windows(*(bound.astype(np.int32) for bound in (row + 1, high, np.full(len(row), -1))))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tiles:
    """Tiles, arrays `[t]` int32: `rows` rows from `row` on against `columns` columns from `column` on."""

    row: np.ndarray
    rows: np.ndarray
    column: np.ndarray
    columns: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "Tiles":
        return Tiles(self.row[chosen], self.rows[chosen], self.column[chosen], self.columns[chosen])

    def __len__(self) -> int:
        return len(self.row)

    @property
    def longer(self) -> np.ndarray:
        """The longer side of each."""
        return np.maximum(self.rows, self.columns)


def cut(windows: Windows, lengths: np.ndarray) -> Tiles:
    """Tiles that cover the windows of all rows, which come in segments of these `lengths`."""
    tiles: list[tuple[int, int, int, int]] = []
    ends = np.cumsum(lengths)
    for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True):
        if start == end:
            continue
        low, high = int(windows.low[start]), int(windows.high[end - 1])
        if max(end - start, high - low) <= block():
            tiles.append((start, end - start, low, high - low))
        else:
            tiles += _cut_segment(windows, start, end)
    return Tiles(*np.array([tile for tile in tiles if tile[3] > 0], np.int32).reshape(-1, 4).T)


def _cut_segment(windows: Windows, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Tiles of rows `start` to `end`. Flat ones along a narrow band, of which a square tile would waste much."""
    width = int(windows.high[start] - windows.low[start])
    rows = min(block(), max(width // 8, 32))
    columns = rows + width if rows + width <= _widest() else block()
    for row in range(start, end, rows):
        last = min(row + rows, end)
        high = int(windows.high[last - 1])
        for column in range(int(windows.low[row]), high, columns):
            yield row, last - row, column, min(columns, high - column)


def compare(
    rows: Vectors,
    columns: Vectors,
    windows: Windows,
    lengths: np.ndarray,
    sigma: float,
    track: Track,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """This process's share of the pairs whose distance is at most `sigma`, as far as fast arithmetic can tell.

    Yields (pairs `[p, 2]` int32 of row and column, which of them are in doubt `[p]`). A pair that is not in doubt
    is close, and a pair that is not there is not: the rounding of what devices compute with could not decide
    otherwise. `lengths` are those of the segments that the rows come in; `track(tiles)` follows the work.
    """
    mesh, tiles = own_devices(), cut(windows, lengths)
    batches = own_share(list(_batches(tiles, mesh.size)))
    shared = jax.device_put(_on_device(rows, columns, windows, sigma), replicated(mesh))

    def verdicts() -> Iterator[tuple[Tiles, Any]]:
        for shape, batch in batches:
            chosen = tiles[batch]
            padded = padded_to_devices(mesh, *vars(chosen).values())
            yield chosen, _program(mesh, shape)(shared, Tiles(*padded))

    with track(sum(len(batch) for _, batch in batches)) as advance:
        for chosen, verdict in one_ahead(verdicts()):
            (tile, row, column), value = _mentioned(verdict)
            yield np.stack([chosen.row[tile] + row, chosen.column[tile] + column], 1), value == _DOUBTFUL
            advance(len(chosen))


class _Shared(NamedTuple):
    """What every device has whole, with a tile of padding at the end that reads may run into."""

    bound: Any
    windows: Windows
    rows: Vectors
    columns: Vectors


def _on_device(rows: Vectors, columns: Vectors, windows: Windows, sigma: float) -> _Shared:
    # Matrix products of bfloat16 are many times faster than float32's where there are tensor cores.
    dtype, error = jnp.float32, 0.0
    if jax.default_backend() != "cpu":
        dtype, error = jnp.bfloat16, rounding.bfloat16_error()

    def padded(array: Any) -> jax.Array:
        room = roomy(max(len(array), _FEWEST_ROWS)) - len(array) + _widest()
        return jnp.pad(array, ((0, room), *[(0, 0)] * (array.ndim - 1)))

    def prepared(vectors: Vectors) -> Vectors:
        slack = jnp.asarray(vectors.slack) + np.float32(error / 2)
        return Vectors(padded(jnp.asarray(vectors.directions, dtype)), padded(slack))

    left = prepared(rows)
    right = left if columns is rows else prepared(columns)
    return _Shared(np.float32(1 - sigma), Windows(*map(padded, windows)), left, right)


def _widest() -> int:
    return _eights(int(_FLAT * block()))


def _batches(tiles: Tiles, devices: int) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Batches of tiles that are padded to one shape (rows, columns): yields (shape, numbers of the tiles).

    Sides are multiples of eight, so that verdicts can be looked at a word at a time. Tiles up to a block are
    padded to squares; the flat ones of a long band all have one shape.
    """
    small, flat = np.flatnonzero(tiles.longer <= block()), np.flatnonzero(tiles.longer > block())
    budget = devices * BATCH_BYTES
    for width, batch in padded_batches(tiles.longer[small], 0, 1, budget, widest=block()):
        yield (_eights(width), _eights(width)), small[batch]
    if len(flat):
        rows, columns = _eights(tiles.rows[flat].max()), _eights(tiles.columns[flat].max())
        for batch in np.array_split(flat, -(-len(flat) * rows * columns // budget)):
            yield (rows, columns), batch


def _eights(side: int) -> int:
    return -(-int(side) // 8) * 8


@functools.cache
def _program(mesh: Mesh, shape: tuple[int, int]) -> Callable[..., Any]:
    """(shared, tiles) -> verdicts `[t, rows, columns]` uint8, tiles split over `mesh`."""

    def verdicts(shared: _Shared, tiles: Tiles) -> jax.Array:
        return jax.lax.map(functools.partial(_verdicts, shared, shape), tiles)

    return split_over_devices(verdicts, mesh)


def _verdicts(shared: _Shared, shape: tuple[int, int], tile: Tiles) -> jax.Array:
    """What is to be said about the pairs `shape` of one tile."""

    def rows_of(array: Any) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(array, tile.row, shape[0])

    def columns_of(array: Any) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(array, tile.column, shape[1])

    products = similarities(rows_of(shared.rows.directions), columns_of(shared.columns.directions))
    low, high, skip = (rows_of(bound)[:, None] for bound in shared.windows)
    column = tile.column + jnp.arange(shape[1])
    compared = (column >= low) & (column < high) & (column != skip)
    compared &= (jnp.arange(shape[0]) < tile.rows)[:, None] & (column < tile.column + tile.columns)
    slack = rows_of(shared.rows.slack)[:, None] + columns_of(shared.columns.slack)
    above = products - shared.bound
    verdict = jnp.where(above >= slack, _CLOSE, jnp.where(above >= -slack, _DOUBTFUL, _APART))
    return jnp.where(compared, verdict, _APART).astype(jnp.uint8)


def _mentioned(verdicts: jax.Array) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Places (tile, row, column) of the verdicts `[t, rows, columns]` that are not `_APART`, and these verdicts."""
    words = np.asarray(verdicts).reshape(-1, 8)
    word = np.flatnonzero(words.view(np.uint64))
    place, offset = np.nonzero(words[word])
    return np.unravel_index(8 * word[place] + offset, verdicts.shape), words[word][place, offset]
