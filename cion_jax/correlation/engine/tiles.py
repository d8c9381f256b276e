"""Comparing long lists of vectors tile by tile, so that no array of all pairs ever exists.

Each row is compared with a *window* of columns. Rows and windows are cut into tiles; a device bounds the
similarities of a tile and keeps one bit per pair. Only candidate pairs, which may be close, are copied to the host.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cion_jax.correlation.engine import screen
from cion_jax.correlation.engine.centroids import Vectors
from cion_jax.correlation.engine.distances import similarities
from cion_jax.correlation.engine.padding import padded_batches
from cion_jax.correlation.engine.sharding import (
    Track,
    bucketed,
    own_devices,
    own_share,
    padded_to_devices,
    split_over_devices,
)
from cion_jax.runtime.mesh import double_buffered, replicate
from cion_jax.runtime.platform import on_cpu

_FEWEST_ROWS = 64  # that programs are compiled for
_FEWEST_WORDS = 2**12  # likewise
_WORD = 32  # bits of as many pairs
_FLAT = 2.25  # a tile along a narrow band is at most so many blocks wide


class Scale(NamedTuple):
    """Sizes of the units of work."""

    block: int  # the longest side of most tiles
    product: int  # pairs that a device multiplies at once: cached on a CPU, enough to fill a GPU
    batch: int  # pairs whose bits leave a device at once
    flat: int  # tiles along a narrow band have the band's width over this for rows
    picked: bool  # on the device, so that only words in which a bit is set cross to the host


def scale() -> Scale:
    """The scale for the platform that is traced for."""
    if on_cpu():
        return Scale(block=512, product=2**18, batch=2**24, flat=8, picked=False)
    # A GPU copies every tile's vectors before it multiplies them, which flat tiles have many of for their pairs.
    return Scale(block=2048, product=2**25, batch=2**30, flat=2, picked=True)


class Windows(NamedTuple):
    """Columns that each row is compared with, arrays `[rows]` int32: from `low` up to `high`, except `skip`.

    Both bounds rise from row to row within a segment.
    """

    low: Any
    high: Any
    skip: Any

    @staticmethod
    def within(lengths: np.ndarray, half_width: int) -> "Windows":
        """Each row against the up to `half_width` rows after it in its segment; segments are of these `lengths`."""
        row = np.arange(lengths.sum(), dtype=np.int64)
        ends = np.repeat(np.cumsum(lengths), lengths)
        high = np.minimum(row + half_width + 1, ends)
        return Windows(*(bound.astype(np.int32) for bound in (row + 1, high, np.full(len(row), -1))))


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
        if max(end - start, high - low) <= scale().block:
            tiles.append((start, end - start, low, high - low))
        else:
            tiles += _cut_segment(windows, start, end)
    return Tiles(*np.array([tile for tile in tiles if tile[3] > 0], np.int32).reshape(-1, 4).T)


def _cut_segment(windows: Windows, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Tiles of rows `start` to `end`. Flat ones along a narrow band, of which a square tile would waste much."""
    width = int(windows.high[start] - windows.low[start])
    rows = min(scale().block, max(_multiple(width // scale().flat, 8), 32))
    columns = rows + width if rows + width <= widest() else scale().block
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
) -> Iterator[np.ndarray]:
    """Yields, in blocks, this process's share of the candidates: pairs that may be as close as `sigma`.

    They are `[p, 2]` int32, row and column. Any other pair is farther apart, whatever rounding does.
    `lengths` are those of the segments of rows; `track(tiles)` reports progress.
    """
    mesh, tiles = own_devices(), cut(windows, lengths)
    work = own_share(list(batches(tiles, mesh.size)))
    if not work:
        return
    shared = replicate(_on_device(rows, columns, sigma), mesh)

    def survivors() -> Iterator[tuple[Tiles, jax.Array]]:
        for shape, batch in work:
            chosen = tiles[batch]
            places = padded_to_devices(mesh, chosen.row, chosen.column)
            yield chosen, program(mesh, shape, scale())(shared, places)

    with track(sum(len(batch) for _, batch in work)) as advance:
        for chosen, words in double_buffered(survivors()):
            yield _inside(windows, chosen, *_bits(words))
            advance(len(chosen))


def _inside(windows: Windows, tiles: Tiles, tile: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The pairs at these places of the `tiles` that are no padding and inside the windows."""
    real = tile < len(tiles)
    tile, row, column = tile[real], row[real], column[real]
    real = (row < tiles.rows[tile]) & (column < tiles.columns[tile])
    row, column = (tiles.row[tile] + row)[real], (tiles.column[tile] + column)[real]
    compared = (windows.low[row] <= column) & (column < windows.high[row]) & (column != windows.skip[row])
    return np.stack([row, column], 1)[compared].astype(np.int32)


class Shared(NamedTuple):
    """Arrays replicated on every device, padded by one tile since reads may run past the end."""

    bound: Any
    rows: Any
    columns: Any


def _on_device(rows: Vectors, columns: Vectors, sigma: float) -> Shared:
    chosen = screen.choose(rows, columns, sigma)

    def factors(vectors: Vectors) -> jax.Array:
        room = bucketed(max(len(vectors), _FEWEST_ROWS)) - len(vectors) + widest()
        return chosen.factors(vectors, room)

    first = factors(rows)
    return Shared(np.float32(1 - sigma + screen.CONSTANT), first, first if columns is rows else factors(columns))


def widest() -> int:
    return _multiple(int(_FLAT * scale().block), _WORD)


def batches(tiles: Tiles, devices: int) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Batches of tiles that are padded to one shape (rows, columns): yields (shape, numbers of the tiles).

    Tiles are padded to squares, or nearly, as their columns come in whole words; those at least twice as wide as high
    among themselves.
    """
    is_flat = (tiles.columns >= 2 * tiles.rows) | (tiles.longer > scale().block)
    square, flat = np.flatnonzero(~is_flat), np.flatnonzero(is_flat)
    budget = devices * scale().batch
    for width, batch in padded_batches(tiles.longer[square], 0, 1, budget, widest=scale().block):
        yield (_multiple(width, 8), _multiple(width, _WORD)), square[batch]
    rows = _multiple(tiles.rows[flat].max(initial=1), 8)
    for _, batch in padded_batches(tiles.columns[flat], rows, 0, budget, widest=widest()):
        chosen = tiles[flat[batch]]
        yield (_multiple(chosen.rows.max(), 8), _multiple(chosen.columns.max(), _WORD)), flat[batch]


def _multiple(side: int, of: int) -> int:
    return -(-int(side) // of) * of


@functools.cache
def program(mesh: Mesh, shape: tuple[int, int], scale: Scale) -> Callable[..., jax.Array]:
    """(shared, (row [t], column [t])) -> bit mask of candidates, `[t, rows, columns / 32]` uint32, over `mesh`."""
    at_once = max(1, scale.product // (shape[0] * shape[1]))

    def survivors(shared: Shared, places: tuple[jax.Array, jax.Array]) -> jax.Array:
        one = functools.partial(_survivors, shared, shape)
        return jax.lax.map(one, places, batch_size=at_once)

    return split_over_devices(survivors, mesh)


def _survivors(shared: Shared, shape: tuple[int, int], place: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Candidates of one tile, one bit per pair: `[rows, columns / 32]` uint32."""
    row, column = place
    rows = jax.lax.dynamic_slice_in_dim(shared.rows, row, shape[0])
    columns = jax.lax.dynamic_slice_in_dim(shared.columns, column, shape[1])
    passed = similarities(rows, columns) >= shared.bound
    bits = passed.reshape(shape[0], -1, _WORD).astype(jnp.uint32) << jnp.arange(_WORD, dtype=jnp.uint32)
    return bits.sum(-1, dtype=jnp.uint32)


def _bits(words: jax.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places (tile, row, column) of the bits that are set in `words` `[t, rows, columns / 32]`."""
    first, places = 0, [np.zeros((3, 0), np.int64)]
    for shard in sorted(words.addressable_shards, key=lambda shard: shard.index[0].start or 0):
        place, word = _nonzero(shard.data)
        bits = np.unpackbits(word.astype("<u4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
        which, bit = np.nonzero(bits)
        tile, row, column = np.unravel_index(place[which], shard.data.shape)
        places.append(np.stack([first + tile, row, _WORD * column + bit]))
        first += len(shard.data)
    return tuple(np.concatenate(places, 1))


def _nonzero(words: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Places `[p]` in the flat `words` of one device, and the words `[p]` there, of those that are not zero."""
    if scale().picked:
        flat = words.reshape(-1)
        # The n-th of them is where their running count reaches n. JAX's `flatnonzero` adds up a histogram instead, on
        # a GPU by atomic additions, and all on one address where no word is set.
        running = jnp.cumsum(flat != 0)
        count = int(running[-1])
        numbers = jnp.arange(1, bucketed(max(count, _FEWEST_WORDS)) + 1)
        place = jnp.searchsorted(running, numbers)
        return np.asarray(place)[:count], np.asarray(flat[place])[:count]
    flat = np.asarray(words).reshape(-1)
    place = np.flatnonzero(flat)
    return place, flat[place]
