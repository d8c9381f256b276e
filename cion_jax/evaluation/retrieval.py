"""Person retrieval scores by the Market-1501 protocol (Zheng et al., ICCV 2015)."""

from typing import NamedTuple

import numpy as np

from cion_jax.evaluation.distances import cosine_distances, unit_rows
from cion_jax.evaluation.ranking import DistancesOf, ranks_of_matches, related_images
from cion_jax.evaluation.reranking import KReciprocal, reranked_distances

JUNK = -1  # identity of junk boxes, which do not show a whole person
_CHECKED_AT_ONCE = 4096  # rows: avoids a copy of all features


class RetrievalScores(NamedTuple):
    """Scores over the queries that have a match, as fractions in [0, 1].

    Attributes:
        mAP: mean over queries of the average precision AP = 1/M sum_m m / r_m, where r_m is the rank of the m-th of
            the query's M matches. This is what torchreid, fast-reid and TransReID report; the original Matlab tool
            interpolated between ranks.
        cmc: `[max_rank]`, cmc[k - 1] = fraction of queries with a match among the top k (Rank-k).
        mINP: mean of M / r_M (Ye et al., TPAMI 2021).
        average_precision: `[all queries]` AP of each query, NaN for one without a match.
        queries: number of queries scored.
        absent: number of queries skipped because their identity is not in the gallery.
        same_camera: number of queries skipped because all their matches are from their own camera.
    """

    mAP: float
    cmc: np.ndarray
    mINP: float
    average_precision: np.ndarray
    queries: int
    absent: int
    same_camera: int

    @property
    def unmatched(self) -> int:
        """Number of queries without a match, for either reason."""
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
    rerank: KReciprocal | None = None,
) -> RetrievalScores:
    """Ranks the gallery for every query by cosine distance and scores the ranking.

    Gallery images of the query's identity from the query's camera are left out of its ranking, and so are junk images
    (identity -1). All others stay, including distractors (identity 0 in Market-1501). Ties rank in gallery order, as
    with a stable sort. Distances are computed in full float32 precision. Memory is two copies of the features and a
    few hundred MB.

    Args:
        query_features, gallery_features: `[rows, dim]`.
        query_ids, gallery_ids: `[rows]` integers.
        query_cameras, gallery_cameras: `[rows]` integers or strings.
        ignore_camera: also rank images from the query's camera, for data with one camera.
        max_rank: length of the CMC.
        rerank: settings of k-reciprocal re-ranking, which uses all queries and the gallery without junk.

    Raises:
        ValueError: The input is inconsistent or not finite, or no query has a match.
    """
    _check_side("query", query_features, query_ids, query_cameras)
    _check_side("gallery", gallery_features, gallery_ids, gallery_cameras)
    if query_features.shape[1] != gallery_features.shape[1]:
        raise ValueError(
            f"query features have {query_features.shape[1]} dimensions, gallery features "
            f"{gallery_features.shape[1]}; extract both with one model"
        )
    real = gallery_ids != JUNK
    if not real.all():  # avoids a copy of the features if there is no junk
        gallery_features, gallery_ids, gallery_cameras = (
            gallery_features[real],
            gallery_ids[real],
            gallery_cameras[real],
        )
    related = related_images(query_ids, gallery_ids, query_cameras, gallery_cameras, ignore_camera=ignore_camera)
    scored = np.flatnonzero([len(images.matches) for images in related])
    same_camera = sum(len(images.left_out) and not len(images.matches) for images in related)
    absent = len(related) - len(scored) - same_camera
    if not len(scored):
        raise ValueError(_no_match(absent, same_camera))
    distances_of = _distances_of(query_features, gallery_features, rerank)
    ranks = ranks_of_matches(
        lambda rows: distances_of(scored[rows]), len(gallery_ids), [related[query] for query in scored]
    )
    return _scores(ranks, scored, max_rank, absent=absent, same_camera=same_camera)


def _distances_of(query: np.ndarray, gallery: np.ndarray, rerank: KReciprocal | None) -> DistancesOf:
    if rerank is not None:
        return reranked_distances(query, gallery, rerank)
    query_unit, gallery_unit = unit_rows(query), unit_rows(gallery)
    return lambda rows: cosine_distances(query_unit[rows], gallery_unit)


def _scores(
    ranks_of: list[np.ndarray], scored: np.ndarray, max_rank: int, *, absent: int, same_camera: int
) -> RetrievalScores:
    first = np.array([ranks[0] for ranks in ranks_of])
    average_precision = np.full(len(ranks_of) + absent + same_camera, np.nan)
    average_precision[scored] = [np.mean(np.arange(1, len(ranks) + 1) / ranks) for ranks in ranks_of]
    return RetrievalScores(
        mAP=float(np.mean(average_precision[scored])),
        cmc=(first[:, None] <= np.arange(1, max_rank + 1)).mean(axis=0),
        mINP=float(np.mean([len(ranks) / ranks[-1] for ranks in ranks_of])),
        average_precision=average_precision,
        queries=len(ranks_of),
        absent=absent,
        same_camera=same_camera,
    )


def _check_side(side: str, features: np.ndarray, ids: np.ndarray, cameras: np.ndarray) -> None:
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(f"{side} features have shape {features.shape}, expected [rows, dim] with at least one row")
    if ids.shape != (len(features),) or cameras.shape != (len(features),):
        raise ValueError(
            f"{side}: {len(features)} feature rows, identities of shape {ids.shape} and cameras of shape "
            f"{cameras.shape}; there must be one of each per row"
        )
    parts = [features[start : start + _CHECKED_AT_ONCE] for start in range(0, len(features), _CHECKED_AT_ONCE)]
    norms = np.concatenate([np.linalg.norm(part.astype(np.float32), axis=1) for part in parts])
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
