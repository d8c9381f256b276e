"""Single-video denoising: stray images find their tracklet (Eq. 5), tracklets of one person merge (Eq. 6).

Tracklets are numbered video by video, so that those of a video are neighbours; `video_lengths` `[videos]`
says how many each has.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cion_jax.correlation.distances import TIE, directions, distance, similarities
from cion_jax.correlation.tiles import Tiles, blocks, close_pairs, pad_rows, read_tile, tile_batches


def reassign(
    excluded: np.ndarray, owners: np.ndarray, sums: np.ndarray, video_lengths: np.ndarray, sigma_cst: float
) -> np.ndarray:
    """Applies Eq. 5 to all excluded images at once: the tracklet each goes to `[e]`, or -1 where none fits.

        t_min = argmin_{t in video, t != own} dist(x, c_t);   x joins t_min if dist(x, c_t_min) < sigma_cst

    `excluded` `[e, d]` are unit features and `owners` `[e]`, ascending, the tracklets they were removed from;
    `sums` `[tracklets, d]` are those of the images that tracklets keep. Equal distances: lowest tracklet.
    """
    nearest = np.full(len(excluded), np.inf, np.float32)
    target = np.full(len(excluded), len(sums), np.int64)
    found = _candidates(excluded, owners, sums, video_lengths)
    for image, _, away in found:
        np.minimum.at(nearest, image, away)
    for image, tracklet, away in found:
        tied = away <= nearest[image] + TIE
        np.minimum.at(target, image[tied], tracklet[tied])
    return np.where(nearest < np.float32(sigma_cst), target, -1)


def merge(sums: np.ndarray, video_lengths: np.ndarray, sigma_drm: float) -> np.ndarray:
    """Eq. 6: the pairs `[links, 2]` of tracklets of one video with dist(c_p, c_q) <= sigma_drm."""
    pairs = close_pairs(directions(sums), video_lengths, half_width=len(sums), sigma=sigma_drm)
    return np.concatenate([np.zeros((0, 2), np.int32), *pairs])


def _candidates(excluded: np.ndarray, owners: np.ndarray, sums: np.ndarray, video_lengths: np.ndarray) -> list:
    """The nearest tracklet in every tile, with ties inside it settled: tuples (image, tracklet, distance)."""
    tiles = _excluded_tiles(owners, video_lengths)
    images, centroids, owners_padded = (pad_rows(rows) for rows in (excluded, directions(sums), owners))
    found = []
    for width, batch in tile_batches(tiles, sums.shape[1]):
        chosen = tiles[batch]
        column, away = _nearest(images, owners_padded, centroids, chosen, width=width)
        inside = np.arange(width) < chosen.rows[:, None]
        image = chosen.row[:, None] + np.arange(width)
        tracklet = chosen.column[:, None] + np.asarray(column)
        found.append((image[inside], tracklet[inside], np.asarray(away)[inside]))
    return found


def _excluded_tiles(owners: np.ndarray, video_lengths: np.ndarray) -> Tiles:
    """Tiles of each video's excluded images (rows) against all its tracklets (columns)."""
    ends = np.cumsum(video_lengths)
    first_image = np.searchsorted(owners, ends - video_lengths)
    images = np.searchsorted(owners, ends) - first_image
    bounds = []
    for video in np.flatnonzero(images):
        columns = blocks(int(ends[video] - video_lengths[video]), int(video_lengths[video]))
        for rows in blocks(int(first_image[video]), int(images[video])):
            bounds += [(*rows, *some) for some in columns]
    return Tiles.of(bounds)


@partial(jax.jit, static_argnames="width")
def _nearest(images: Any, owners: Any, centroids: Any, tiles: Tiles, *, width: int):
    """For each image `[tiles, width]`: the column of the nearest tracklet but its own, and the distance."""

    def one(tile: Tiles) -> tuple[jax.Array, jax.Array]:
        rows = read_tile(images, tile.row, width)
        columns = read_tile(centroids, tile.column, width)
        own = read_tile(owners, tile.row, width)
        column = jnp.arange(width)
        other = (column < tile.columns) & (tile.column + column != own[:, None])
        away = jnp.where(other, distance(similarities(rows, columns)), jnp.inf)
        nearest = away.min(1)
        return jnp.argmax(away <= nearest[:, None] + TIE, 1), nearest

    return jax.vmap(one)(tiles)
