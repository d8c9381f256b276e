"""Validation of the inputs of correlation, before any work starts; each check raises `ValueError`."""

import jax
import jax.numpy as jnp
import numpy as np

from cion_jax.correlation.engine.distances import row_blocks, squared_lengths, unit
from cion_jax.runtime.arrays import RowArray

SHOWN = 5  # bad rows listed in an error message


def check_features(features: RowArray) -> None:
    """Checks that features are `[n, d]`, float16 or float32, finite and non-zero in every row."""
    check_array(features)
    bad = [_without_direction(lengths) + rows.start for rows, lengths in row_blocks(features, _squared_unit_lengths)]
    _refuse_rows(np.concatenate(bad), len(features))


def check_array(features: RowArray) -> None:
    """Checks that features are a non-empty array `[n, d]`, float16 or float32, without reading its values."""
    if not isinstance(features, RowArray) or features.ndim != 2:
        raise ValueError(f"features are of shape {np.shape(features)}, expected an array [rows, dim]")
    if features.dtype not in (np.float16, np.float32):
        raise ValueError(f"features are {features.dtype}, expected float16 or float32; save them as float32")
    if 0 in features.shape:
        raise ValueError(f"features are empty (shape {features.shape}); correlation needs at least one image")


def check_directions(images: np.ndarray, rows: np.ndarray, total: int) -> None:
    """Checks normalised `images` `[m, d]`, read from the features in `rows` `[m]` of `total`, for NaN and zero."""
    _refuse_rows(np.sort(rows[_without_direction(squared_lengths(images))]), total)


def _refuse_rows(bad: np.ndarray, total: int) -> None:
    if len(bad):
        more = ", ..." if len(bad) > SHOWN else ""
        raise ValueError(
            f"features of {len(bad)} of {total} rows are NaN, infinite or all zero: rows "
            f"{', '.join(map(str, bad[:SHOWN]))}{more} (counted from 0); extract them again, or drop "
            f"these rows from table and features"
        )


@jax.jit
def _squared_unit_lengths(features: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(unit(features)), axis=-1)


def _without_direction(squared_unit_lengths: np.ndarray) -> np.ndarray:
    # Normalising NaN, infinite or zero features gives NaN or a vector that is not of length one.
    return np.flatnonzero(~(np.abs(squared_unit_lengths - 1) < 0.2))


def check_tracklets(videos: np.ndarray, tracklets: np.ndarray, rows: int) -> None:
    """Checks that videos and tracklets are integers `[n]`, and that each tracklet number belongs to one video."""
    for name, codes in (("videos", videos), ("tracklets", tracklets)):
        _check_integers(name, codes, rows)
    _, first, inverse = np.unique(tracklets, return_index=True, return_inverse=True)
    elsewhere = np.flatnonzero(videos[first][inverse] != videos)
    if len(elsewhere):
        row = elsewhere[0]
        raise ValueError(
            f"tracklet {tracklets[row]} is in video {videos[first][inverse][row]} and, in row {row}, video "
            f"{videos[row]}; number tracklets across all videos, as `SampleTable.tracklets`"
        )


def check_frames(frames: np.ndarray | None, rows: int, needed: bool) -> None:
    """Checks that frames are integers `[n]`, or None where they are not `needed`."""
    if frames is not None:
        _check_integers("frames", frames, rows)
    elif needed:
        raise ValueError("forbid_covisible needs to know the frame of each image; add a column frame, or leave it out")


def check_identities(identities: np.ndarray, rows: int) -> None:
    """Checks that identities are integers `[n]`, not all of them -1 (discarded)."""
    _check_integers("identities", identities, rows)
    if not (identities >= 0).any():
        raise ValueError("no row has an identity: all are -1 (discarded), so there is nothing to measure")


def _check_integers(name: str, codes: np.ndarray, rows: int) -> None:
    if np.shape(codes) != (rows,) or not np.issubdtype(np.asarray(codes).dtype, np.integer):
        got = f"{np.asarray(codes).dtype} of shape {np.shape(codes)}"
        raise ValueError(f"{name} are {got}, expected one integer for each of the {rows} rows of features")


def check_threshold(name: str, sigma: float) -> None:
    """Checks that a threshold is a cosine distance, in [0, 2]."""
    if not 0 <= sigma <= 2:
        raise ValueError(f"{name}={sigma}: expected a cosine distance between 0 and 2")


def check_rate(rate: float) -> None:
    """Checks that a false-link rate lies strictly between 0 and 1."""
    if not 0 < rate < 1:
        raise ValueError(f"a false-link rate of {rate}: expected a share above 0 and below 1, such as 1e-3")


def reach(half_width: int | str | None) -> int | None:
    """Half width of the sliding range as an integer >= 0, or None for "all" (every pair is compared)."""
    if half_width is None or half_width == "all":
        return None
    if isinstance(half_width, str) or int(half_width) != half_width or half_width < 0:
        raise ValueError(f'half_width={half_width!r}: expected an integer of 0 or more, or "all"')
    return int(half_width)


def check_levels(levels: int) -> None:
    """Checks that the last level is 0 (initial tracklets) to 3 (identities across videos)."""
    if levels not in (0, 1, 2, 3):
        raise ValueError(f"levels={levels!r}: expected 0, 1, 2 or 3")
