"""Comparing the centroids of a long sequence tile by tile, so that no array of all pairs ever exists.

A *sequence* of centroids is cut into *segments* (videos, or the whole sequence as one); only centroids of one
segment, at most `half_width` positions apart, are compared, each pair once.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cion_jax.correlation.distances import distance, similarities
from cion_jax.correlation.padding import padded_batches

BLOCK = 512  # the most rows and columns of a tile
BATCH_BYTES = 64 * 2**20


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tiles:
    """Tiles, arrays `[t]`: `rows` centroids from `row` on against `columns` centroids from `column` on."""

    row: np.ndarray
    rows: np.ndarray
    column: np.ndarray
    columns: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "Tiles":
        return Tiles(self.row[chosen], self.rows[chosen], self.column[chosen], self.columns[chosen])

    def __len__(self) -> int:
        return len(self.row)

    @staticmethod
    def of(bounds: list[tuple[int, int, int, int]]) -> "Tiles":
        """Tiles from tuples (row, rows, column, columns)."""
        return Tiles(*np.array(bounds, np.int32).reshape(-1, 4).T)


def blocks(start: int, length: int) -> list[tuple[int, int]]:
    """Cuts `length` centroids from `start` on into (start, length) of at most `BLOCK` each."""
    return [(start + at, min(BLOCK, length - at)) for at in range(0, length, BLOCK)]


def segment_tiles(lengths: np.ndarray, half_width: int) -> Tiles:
    """Tiles on and above the diagonal that cover the pairs within segments, at most `half_width` apart."""
    bounds = []
    starts = np.cumsum(lengths) - lengths
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        cut = blocks(start, length)
        for number, rows in enumerate(cut):
            last_row = rows[0] + rows[1] - 1
            bounds += [(*rows, *columns) for columns in cut[number:] if columns[0] - last_row <= half_width]
    return Tiles.of(bounds)


def close_pairs(centroids: np.ndarray, lengths: np.ndarray, half_width: int, sigma: float) -> Iterator[np.ndarray]:
    """Yields pairs i < j `[pairs, 2]` int32 of one segment, j - i <= half_width, dist(c_i, c_j) <= sigma.

    `centroids` `[k, d]` are unit vectors in sequence order; `lengths` are those of the segments.
    """
    for batch, close in _compared(centroids, lengths, half_width, sigma, _close):
        tile, row, column = np.nonzero(np.asarray(close))
        yield np.stack([batch.row[tile] + row, batch.column[tile] + column], 1).astype(np.int32)


def count_close_pairs(centroids: np.ndarray, lengths: np.ndarray, half_width: int, sigma: float) -> int:
    """How many pairs `close_pairs` would yield; they are counted on the device."""
    compared = _compared(centroids, lengths, half_width, sigma, _count_close)
    return sum(int(np.asarray(counts, np.int64).sum()) for _, counts in compared)


def _compared(centroids: np.ndarray, lengths: np.ndarray, half_width: int, sigma: float, compare: Any):
    tiles = segment_tiles(lengths, half_width)
    padded = pad_rows(centroids)
    for width, batch in tile_batches(tiles, centroids.shape[1]):
        chosen = tiles[batch]
        yield chosen, compare(padded, chosen, np.int32(half_width), np.float32(sigma), width=width)


def tile_batches(tiles: Tiles, dim: int) -> Iterator[tuple[int, np.ndarray]]:
    """Batches of tiles that are padded to one width, by their longer side."""
    longer = np.maximum(tiles.rows, tiles.columns)
    return padded_batches(longer, row_bytes=8 * dim, square_bytes=5, budget=BATCH_BYTES)


def pad_rows(centroids: np.ndarray) -> jax.Array:
    """Puts `[k, ...]` rows on the device, with a tile of zeros after them that reads may run into."""
    return jnp.pad(jnp.asarray(centroids), ((0, BLOCK), *[(0, 0)] * (centroids.ndim - 1)))


def read_tile(vectors: jax.Array, start: Any, width: int) -> jax.Array:
    """Rows `[width, d]` of `pad_rows`, from `start` on."""
    return jax.lax.dynamic_slice_in_dim(vectors, start, width)


@partial(jax.jit, static_argnames="width")
def _close(centroids: Any, tiles: Tiles, half_width: Any, sigma: Any, *, width: int) -> jax.Array:
    """Which pairs `[tiles, width, width]` are close, and to be compared at all."""

    def one(tile: Tiles) -> jax.Array:
        rows = read_tile(centroids, tile.row, width)
        columns = read_tile(centroids, tile.column, width)
        row, column = jnp.arange(width)[:, None], jnp.arange(width)
        apart = (tile.column + column) - (tile.row + row)
        compared = (row < tile.rows) & (column < tile.columns) & (apart > 0) & (apart <= half_width)
        return compared & (distance(similarities(rows, columns)) <= sigma)

    return jax.vmap(one)(tiles)


@partial(jax.jit, static_argnames="width")
def _count_close(centroids: Any, tiles: Tiles, half_width: Any, sigma: Any, *, width: int) -> jax.Array:
    close = _close(centroids, tiles, half_width, sigma, width=width)
    return close.sum((1, 2), dtype=jnp.int32)
