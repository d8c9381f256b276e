"""Correlation of a sample table and its features on disk, and the three files it writes."""

import dataclasses
import os
import time
from pathlib import Path

import numpy as np

from cion_jax import samples as tables
from cion_jax.correlation import chaining, covisible
from cion_jax.correlation.levels import LevelResult, correlate
from cion_jax.correlation.noise import noise
from cion_jax.correlation.scoring import pairwise_scores
from cion_jax.runtime.files import write_json
from cion_jax.runtime.processes import is_primary
from cion_jax.runtime.progress import progress

# With more identities than this, the pairs of Eq. 2 are counted for a sample of this many.
NOISE_ROWS = 4000
SHOWN = 4  # images that the report lists for either side of a weak link
IDENTITIES, ANNOTATIONS, REPORT = "identities.parquet", "annotations.json", "report.json"


def correlate_to(
    out: str | os.PathLike,
    samples: str | os.PathLike,
    features_path: str | os.PathLike,
    *,
    sigma_cst: float = 0.2,
    sigma_drm: float = 0.18,
    half_width: int | str | None = 1000,
    levels: int = 3,
    forbid_covisible: bool = False,
    overwrite: bool = False,
) -> dict:
    """Correlates a sample table; writes `identities.parquet`, `annotations.json`, `report.json` into `out`.

    Each file is written atomically, the report last: if it exists, the results are complete. Only the primary process
    writes.

    Args:
        out: Output folder.
        samples: Sample table with columns `video` and `tracklet`.
        features_path: `.npy` `[rows, dim]`, row-aligned with the table.
        sigma_cst, sigma_drm, half_width, levels, forbid_covisible: Settings of `correlate`.
        overwrite: Replace results that are complete.

    Returns:
        The report.

    Raises:
        ValueError: Unusable input, or complete results without `overwrite`, before any work starts.
    """
    started = time.perf_counter()
    report_path = Path(out) / REPORT
    if is_primary() and report_path.exists() and not overwrite:
        raise ValueError(f"{report_path} exists: these results are complete; to replace them, set overwrite")
    table = read_correlatable(samples)
    features = open_features(features_path, len(table))
    reach = "all" if half_width is None else half_width
    settings = {"sigma_cst": sigma_cst, "sigma_drm": sigma_drm, "half_width": reach, "levels": levels}
    settings["forbid_covisible"] = forbid_covisible
    identities, entries = _correlate(table, features, settings)
    report = {
        "images": len(table),
        "settings": settings,
        "levels": entries,
        "seconds": round(time.perf_counter() - started, 3),
    }
    if is_primary():
        _write(Path(out), table.with_columns(identity=identities), report)
    return report


def _write(out: Path, identified: tables.SampleTable, report: dict) -> None:
    """Writes all three files, or none if one cannot be written."""
    (out / REPORT).unlink(missing_ok=True)  # the results it describes are being replaced
    try:
        tables.write_samples(identified, out / IDENTITIES)
        tables.write_annotations(identified, out / ANNOTATIONS)
        write_json(out / REPORT, report)
    except OSError as error:
        for name in (IDENTITIES, ANNOTATIONS):
            (out / name).unlink(missing_ok=True)
        raise OSError(f"{out}: results cannot be written ({error}); make room, or choose another --out") from error


def _correlate(table: tables.SampleTable, features: np.ndarray, settings: dict) -> tuple[np.ndarray, list[dict]]:
    """Identities `[n]`, and the report entry of each level."""
    entries: list[dict] = []
    frames = table["frame"] if "frame" in table.columns else None
    frame_ids = None if frames is None else covisible.number_frames(table.videos, frames)

    before = np.full(len(table), -1)  # identities of the previous level

    def on_level(result: LevelResult) -> None:
        entry = _entry(result, table, features, frame_ids, settings)
        entries.append(entry | {"largest": [_described(large, table, before) for large in result.largest]})
        before[:] = result.identities

    correlation = correlate(
        features, table.videos, table.tracklets, **settings, frames=frames, on_level=on_level, progress=progress
    )
    return correlation.identities, entries


def read_correlatable(path: str | os.PathLike) -> tables.SampleTable:
    """Reads a sample table; raises `ValueError` if it lacks the columns `video` and `tracklet`."""
    table = tables.read_samples(path)
    missing = [name for name in ("video", "tracklet") if name not in table.columns]
    if missing:
        raise ValueError(
            f"{path}: no column {' and no column '.join(missing)} (it has {', '.join(table.columns)}); "
            f"correlation needs to know the video and the tracklet that each image was cut out of"
        )
    return table


def open_features(path: str | os.PathLike, rows: int) -> np.ndarray:
    """Memory-maps a `.npy` of features `[rows, dim]`; raises `ValueError` if it is not that."""
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; `python -m cion_jax.extract` makes features") from None
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npy array ({error}); extract it again") from error
    if features.ndim != 2 or len(features) != rows:
        raise ValueError(
            f"{path}: features of shape {features.shape} for a sample table of {rows} rows; expected "
            f"[{rows}, dim], row for row as in the table that they were extracted from"
        )
    return features


def _entry(
    result: LevelResult, table: tables.SampleTable, features: np.ndarray, frame_ids: np.ndarray | None, settings: dict
) -> dict:
    """Report entry of one level."""
    started = time.perf_counter()
    sigmas = {name: settings[name] for name in ("sigma_cst", "sigma_drm")}
    measured = noise(features, result.identities, **sigmas, most_rows=NOISE_ROWS, progress=progress)
    discarded = int((result.identities < 0).sum())
    entry = {
        "level": result.level,
        "identities": measured.identities,
        "images_kept": len(features) - discarded,
        "images_discarded": discarded,
        "links": len(result.links),
        "noise": measured.total,
        "noise_consistency": measured.consistency,
        "noise_discrimination": measured.discrimination,
        "noise_standard_error": measured.standard_error,
        "images_per_identity": chaining.sizes(result.identities),
        "seconds": round(result.seconds, 3),
        "seconds_noise": round(time.perf_counter() - started, 3),
    }
    if warning := chaining.chaining_warning(result.identities):
        entry["warning"] = warning
    if frame_ids is not None:
        entry["covisible_links"] = 0 if result.covisible is None else int(result.covisible.sum())
        entry["covisible_identities"] = covisible.conflicts(frame_ids, table.tracklets, result.identities)
    if "person" in table.columns:
        entry["pairwise"] = dataclasses.asdict(pairwise_scores(result.identities, table["person"]))
    return entry


def _described(large: chaining.LargeIdentity, table: tables.SampleTable, before: np.ndarray) -> dict:
    """Report entry of a large identity, with example images; `before` `[n]` are the identities that it links."""
    weakest = [
        {"identities": [a, b], "distance": distance, "images": [_examples(table, before == side) for side in (a, b)]}
        for a, b, distance in large.weakest
    ]
    first = str(table["file_path"][large.row])
    return {"images": large.images, "joined": large.groups, "first_image": first, "weakest_links": weakest}


def _examples(table: tables.SampleTable, members: np.ndarray) -> list[str]:
    """Up to `SHOWN` image paths of the rows in the mask `members` `[n]`, evenly spaced from first to last."""
    rows = np.flatnonzero(members)
    spread = np.unique(np.linspace(0, len(rows) - 1, SHOWN).astype(int))
    return table.select(rows[spread])["file_path"].tolist()
