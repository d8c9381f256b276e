"""Label-free adaptation of features: centered by video, and whitened.

Features of self-distilled networks lie in a narrow cone, and images of one video share light, camera and background.
Both hide who is who: distances of different people are small, and smallest within a video. Adaptation removes what a
video's images have in common, and gives all other directions the same variance. It uses no label.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cion_jax.features.store import aligned_samples
from cion_jax.runtime.arrays import ArrayWriter, RowArray
from cion_jax.runtime.files import atomic_path, write_json
from cion_jax.samples import SampleTable, write_samples

# Tracklets at the mean of all videos that are added to each video. A video of one tracklet would otherwise be centered
# on the only person in it.
PRIOR_TRACKLETS = 2
SHRINKAGE = 0.1  # of the covariance toward a multiple of the identity matrix
_ROWS_AT_ONCE = 2**14


class Adaptation(NamedTuple):
    """The fitted transform.

    Attributes:
        centers: `[videos, d]`, mu_v.
        whitening: `[d, d]`, Sigma^(-1/2).
    """

    centers: np.ndarray
    whitening: np.ndarray

    def __call__(self, features: np.ndarray, videos: np.ndarray) -> np.ndarray:
        """Adapts `features` `[m, d]` of the `videos` `[m]`; unit vectors `[m, d]` float32, NaN without a direction."""
        adapted = (_unit(features) - self.centers[videos]) @ self.whitening
        with np.errstate(invalid="ignore"):
            return (adapted / np.linalg.norm(adapted, axis=1, keepdims=True)).astype(np.float32)


def fit(features: RowArray, videos: np.ndarray, tracklets: np.ndarray) -> Adaptation:
    """Fits the transform of `features`, in two passes over blocks of rows.

        y = Sigma^(-1/2) (x - mu_v),   mu_v = (P mu + sum_t c_t) / (P + T_v)   over the T_v tracklets t of video v

        x [d] L2-normalised feature of an image of video v,   c_t [d] mean of the x of tracklet t,   mu [d] mean of
        all c_t,   P = PRIOR_TRACKLETS,   Sigma [d, d] covariance of x - mu_v, of which SHRINKAGE is replaced by
        the mean of its eigenvalues times the identity matrix

    Args:
        features: `[n, d]` float16 or float32, may be a memory map.
        videos, tracklets: `[n]` integers from 0 on; a tracklet belongs to one video.

    Raises:
        ValueError: all features of every video are equal, so there is nothing to whiten.
    """
    weights = 1 / np.bincount(tracklets)[tracklets]
    sums = np.zeros((videos.max() + 1, features.shape[1]))
    for rows in _blocks(len(features)):
        np.add.at(sums, videos[rows], _unit(features[rows]) * weights[rows, None])
    counts = np.bincount(videos, weights)[:, None]  # tracklets of each video
    centers = (sums + PRIOR_TRACKLETS * sums.sum(0) / counts.sum()) / (counts + PRIOR_TRACKLETS)
    covariance = np.zeros((features.shape[1],) * 2)
    for rows in _blocks(len(features)):
        centered = _unit(features[rows]) - centers[videos[rows]]
        covariance += centered.T @ centered / len(features)
    return Adaptation(centers, _inverse_root(covariance))


def adapt_to(out: str | os.PathLike, features: RowArray, table: SampleTable, about: Mapping[str, Any]) -> None:
    """Fits and applies the transform; writes `out` (`.npy`, float16) and the files that `extract` writes beside it.

    Args:
        out: the `.npy` to write; its description, written last, marks the files as complete.
        features: `[rows, dim]`, row by row as the table.
        table: samples with `video` and `tracklet`.
        about: description of the features.

    Raises:
        ValueError: features that are not finite or all zero, or equal the mean of their video; the row is named.
    """
    out = Path(out)
    description = out.with_suffix(".json")
    description.unlink(missing_ok=True)
    videos = table.videos
    adaptation = fit(features, videos, table.tracklets)
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        writer = ArrayWriter(file, np.dtype(np.float16))
        for rows in _blocks(len(features)):
            adapted = adaptation(features[rows], videos[rows])
            if len(bad := np.flatnonzero(~np.isfinite(adapted).all(1))):
                raise ValueError(
                    f"the feature of row {rows.start + bad[0]} has no direction once it is centered by video: it is "
                    "not finite, all zero, or equal to all others; extract the features again"
                )
            writer.append(adapted)
        writer.finish()
    write_samples(table, aligned_samples(out))
    settings = {"centered_by": "video", "prior_tracklets": PRIOR_TRACKLETS, "shrinkage": SHRINKAGE}
    # Features adapted to one crawl cannot be compared with those adapted to another.
    settings["sha256"] = hashlib.sha256(adaptation.whitening.tobytes() + adaptation.centers.tobytes()).hexdigest()
    write_json(description, {**about, "dtype": "float16", "adaptation": settings})


def _unit(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return features / np.linalg.norm(features, axis=1, keepdims=True)


def _inverse_root(covariance: np.ndarray) -> np.ndarray:
    """Sigma^(-1/2) of the shrunk covariance, symmetric."""
    level = np.trace(covariance) / len(covariance)
    if not level > 1e-12:  # NaN included
        raise ValueError(
            f"the features have a variance of {level:g} within their videos; expected them to differ: the network has "
            "collapsed, or the features are not finite"
        )
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(shrunk)
    return (vectors / np.sqrt(values)) @ vectors.T


def _blocks(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _ROWS_AT_ONCE):
        yield slice(start, min(start + _ROWS_AT_ONCE, rows))
