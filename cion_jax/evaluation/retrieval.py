"""Person retrieval scores by the Market-1501 protocol (Zheng et al., ICCV 2015)."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

QUERIES_PER_BLOCK = 256
JUNK = -1  # identity of boxes that show no whole person


class RetrievalScores(NamedTuple):
    """Scores over the queries that have a match; fractions in [0, 1].

    mAP: mean over queries of the average precision AP = 1/M sum_m m / r_m, r_m being the rank of the m-th
        of the query's M matches. This is what torchreid, fast-reid and TransReID report; the first Matlab
        tool interpolated between ranks.
    cmc: `[max_rank]`, cmc[k - 1] = share of queries with a match among the first k (Rank-k).
    mINP: mean of M / r_M (Ye et al., TPAMI 2021).
    queries: number of queries scored.
    absent: queries left out because their identity is not in the gallery.
    same_camera: queries left out because the camera rule leaves none of their matches.
    """

    mAP: float
    cmc: np.ndarray
    mINP: float
    queries: int
    absent: int
    same_camera: int

    @property
    def unmatched(self) -> int:
        """Queries without any match, for either reason."""
        return self.absent + self.same_camera


def retrieval_scores(
    query_features: np.ndarray,
    gallery_features: np.ndarray,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
    *,
    ignore_camera: bool = False,
    max_rank: int = 50,
) -> RetrievalScores:
    """Ranks the gallery for every query by cosine distance and scores the ranking.

    Features are `[rows, dim]`, identities `[rows]` integers, cameras `[rows]` integers or strings. Left out
    of a ranking are gallery images with the query's identity from the query's camera (`ignore_camera` keeps
    them, for data with one camera), and junk, identity -1. Everything else stays in, distractors (identity 0
    in Market-1501) as well. Equal distances rank in gallery order, as with a stable sort.

    Distances are float32 products at full precision. Memory is that of a block of queries times the gallery.
    Raises ValueError for inconsistent or non-finite input and where no query at all has a match.
    """
    _check_side("query", query_features, query_ids, query_cameras)
    _check_side("gallery", gallery_features, gallery_ids, gallery_cameras)
    if query_features.shape[1] != gallery_features.shape[1]:
        raise ValueError(
            f"query features have {query_features.shape[1]} dimensions, gallery features "
            f"{gallery_features.shape[1]}; extract both with one model"
        )
    real = gallery_ids != JUNK
    gallery_ids, gallery_cameras = gallery_ids[real], gallery_cameras[real]
    found, absent, same_camera = [], 0, 0  # found: ranks of the matches, per query
    for query, distances in enumerate(_distances(query_features, gallery_features[real])):
        same = gallery_ids == query_ids[query]
        left_out = same & (gallery_cameras == query_cameras[query]) & (not ignore_camera)
        matches = same[~left_out]
        if matches.any():
            found.append(match_ranks(distances[~left_out], np.flatnonzero(matches)))
        elif same.any():
            same_camera += 1
        else:
            absent += 1
    if not found:
        raise ValueError(_no_match(absent, same_camera))
    return _scores(found, max_rank, absent=absent, same_camera=same_camera)


def _scores(found: list[np.ndarray], max_rank: int, *, absent: int, same_camera: int) -> RetrievalScores:
    first = np.array([ranks[0] for ranks in found])
    return RetrievalScores(
        mAP=float(np.mean([np.mean(np.arange(1, len(ranks) + 1) / ranks) for ranks in found])),
        cmc=(first[:, None] <= np.arange(1, max_rank + 1)).mean(axis=0),
        mINP=float(np.mean([len(ranks) / ranks[-1] for ranks in found])),
        queries=len(found),
        absent=absent,
        same_camera=same_camera,
    )


def match_ranks(distances: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """Ranks (from 1, ascending) of the entries `matches` among all `distances`, ties in index order.

    rank = 1 + number of smaller distances + number of equal ones before it: exact, without ordering the rest.
    """
    ordered = np.sort(distances)
    values = distances[matches]
    smaller = np.searchsorted(ordered, values, side="left")
    equal = np.searchsorted(ordered, values, side="right") - smaller
    for tied in np.flatnonzero(equal > 1):
        smaller[tied] += np.count_nonzero(distances[: matches[tied]] == values[tied])
    return np.sort(smaller) + 1


def _distances(query: np.ndarray, gallery: np.ndarray) -> Iterator[np.ndarray]:
    """Yields 1 - cosine, `[gallery]` float32, for one query after another, computed in blocks."""
    gallery_unit = _unit(jnp.asarray(gallery))
    for start in range(0, len(query), QUERIES_PER_BLOCK):
        block = query[start : start + QUERIES_PER_BLOCK]
        # All blocks have one shape: one compilation.
        padded = np.pad(block, ((0, QUERIES_PER_BLOCK - len(block)), (0, 0)), constant_values=1)
        yield from np.asarray(_block_distances(jnp.asarray(padded), gallery_unit))[: len(block)]


@jax.jit
def _unit(features: jax.Array) -> jax.Array:
    features = features.astype(jnp.float32)
    return features / jnp.linalg.norm(features, axis=1, keepdims=True)


@jax.jit
def _block_distances(query: jax.Array, gallery_unit: jax.Array) -> jax.Array:
    return 1 - jnp.matmul(_unit(query), gallery_unit.T, precision=jax.lax.Precision.HIGHEST)


def _check_side(side: str, features: np.ndarray, ids: np.ndarray, cameras: np.ndarray) -> None:
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(f"{side} features have shape {features.shape}, expected [rows, dim] with at least one row")
    if ids.shape != (len(features),) or cameras.shape != (len(features),):
        raise ValueError(
            f"{side}: {len(features)} feature rows, identities of shape {ids.shape} and cameras of shape "
            f"{cameras.shape}; there must be one of each per row"
        )
    norms = np.linalg.norm(features.astype(np.float32), axis=1)
    bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if bad.size:
        raise ValueError(f"{side} features are not finite or all zero in {bad.size} rows, the first is row {bad[0]}")


def _no_match(absent: int, same_camera: int) -> str:
    message = "no query has a match in the gallery:"
    if absent:
        message += f" the identity of {absent} is not there;"
    if same_camera:
        message += (
            f" {same_camera} have matches from their own camera only, which the protocol leaves out "
            "(--ignore_camera keeps them; for data with one camera);"
        )
    return message.rstrip(";")
