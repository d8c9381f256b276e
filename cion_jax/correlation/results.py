"""Correlation of a sample table and its features on disk, and the files it writes."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax import samples as tables
from cion_jax.correlation import covisible
from cion_jax.correlation.background import find_background
from cion_jax.correlation.entries import background_entry, largest_entry, level_entry
from cion_jax.correlation.growing.index import FOLDER, feature_parts, write_index
from cion_jax.correlation.growing.state import State
from cion_jax.correlation.levels import Correlation, LevelResult, correlate
from cion_jax.correlation.rules import NEIGHBORS
from cion_jax.features.store import extractor_of, feature_files
from cion_jax.runtime.arrays import RowArray, StackedArray
from cion_jax.runtime.files import write_json
from cion_jax.runtime.processes import is_primary
from cion_jax.runtime.progress import progress

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
    rule: str = "closure",
    neighbors: int = NEIGHBORS,
    drop_background: bool = False,
    overwrite: bool = False,
) -> dict:
    """Correlates a sample table; writes `identities.parquet`, `annotations.json`, `report.json` into `out`.

    After level 3, the folder `index` is there too, from which the correlation can grow and be searched. Each is written
    atomically, the report last: if it exists, the results are complete. Only the primary process writes.

    Args:
        out: Output folder.
        samples: Sample table with columns `video` and `tracklet`.
        features_path: `.npy` `[rows, dim]`, row-aligned with the table; or one joined without a copy.
        sigma_cst, sigma_drm, half_width, levels, forbid_covisible, rule, neighbors: Settings of `correlate`.
        drop_background: Discard identities that show no person (`cion_jax.correlation.background`). They are reported
            in any case. Such results have no index: images added later could not be compared with discarded ones.
        overwrite: Replace results that are complete.

    Returns:
        The report.

    Raises:
        ValueError: Unusable input, or complete results without `overwrite`, before any work starts.
    """
    started = time.perf_counter()
    check_unwritten(out, overwrite)
    table = read_correlatable(samples)
    features = open_features(features_path, len(table))
    reach = "all" if half_width is None else half_width
    settings: dict[str, Any] = {"sigma_cst": sigma_cst, "sigma_drm": sigma_drm, "half_width": reach, "levels": levels}
    settings |= {"forbid_covisible": forbid_covisible, "rule": rule, "neighbors": neighbors}
    correlation, entries = _correlate(table, features, settings)
    background = find_background(correlation.identities, table.tracklets)
    without = background.dropped(correlation.identities)
    identities = without if drop_background else correlation.identities
    report = {
        "images": len(table),
        "settings": settings,
        "levels": entries,
        "background": background_entry(background, without, table) | {"dropped": drop_background},
        "seconds": round(time.perf_counter() - started, 3),
    }

    def write_state(folder: Path) -> None:
        if levels == 3 and not drop_background:
            write_index(
                folder,
                State.after(correlation),
                correlation.identities,
                feature_parts(features_path),
                settings=settings,
                extractor=extractor_of(features_path),
                next_identity=int(correlation.identities.max()) + 1,
            )

    if is_primary():
        write_results(Path(out), table.with_columns(identity=identities), report, write_state)
    return report


def check_unwritten(out: str | os.PathLike, overwrite: bool) -> None:
    """Raises ValueError if `out` has complete results that are not to be replaced."""
    report = Path(out) / REPORT
    if is_primary() and report.exists() and not overwrite:
        raise ValueError(f"{report} exists: these results are complete; to replace them, set overwrite")


def write_results(out: Path, identified: tables.SampleTable, report: dict, write_state: Callable[[Path], None]) -> None:
    """Writes all results, the report last, or none if one cannot be written; `write_state(out)` writes the index."""
    (out / REPORT).unlink(missing_ok=True)  # the results it describes are being replaced
    try:
        _remove_results(out)
        write_state(out)
        tables.write_samples(identified, out / IDENTITIES)
        tables.write_annotations(identified, out / ANNOTATIONS)
        write_json(out / REPORT, report)
    except OSError as error:
        _remove_results(out)
        raise OSError(f"{out}: results cannot be written ({error}); make room, or choose another --out") from error


def _remove_results(out: Path) -> None:
    for name in (IDENTITIES, ANNOTATIONS):
        (out / name).unlink(missing_ok=True)
    if (out / FOLDER).exists():
        shutil.rmtree(out / FOLDER)


def _correlate(table: tables.SampleTable, features: RowArray, settings: dict) -> tuple[Correlation, list[dict]]:
    """The correlation, and the report entry of each level."""
    entries: list[dict] = []
    frames = table["frame"] if "frame" in table.columns else None
    frame_ids = None if frames is None else covisible.number_frames(table.videos, frames)

    before = table.tracklets  # identities of the previous level

    def on_level(result: LevelResult) -> None:
        nonlocal before
        entry = level_entry(result, table, features, frame_ids, settings)
        entries.append(entry | {"largest": [largest_entry(large, table, before) for large in result.largest]})
        before = result.identities

    correlation = correlate(
        features, table.videos, table.tracklets, **settings, frames=frames, on_level=on_level, progress=progress
    )
    return correlation, entries


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


def open_features(path: str | os.PathLike, rows: int) -> RowArray:
    """Memory-maps features `[rows, dim]`, in one file or in parts; raises `ValueError` if they are not that."""
    parts = [_mapped(file) for file in feature_files(path)]
    plain = len(parts) == 1 and (parts[0].ndim != 2 or parts[0].dtype != np.float64)
    features = parts[0] if plain else StackedArray(parts)
    if features.ndim != 2 or len(features) != rows:
        raise ValueError(
            f"{path}: features of shape {features.shape} for a sample table of {rows} rows; expected "
            f"[{rows}, dim], row for row as in the table that they were extracted from"
        )
    return features


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; `python -m cion_jax.extract` makes features") from None
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npy array ({error}); extract it again") from error
