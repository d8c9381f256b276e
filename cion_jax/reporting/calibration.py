"""Calibration of the two thresholds, written as `calibration.json` and `calibration.png`."""

import os
import time
from pathlib import Path

from cion_jax.correlation.calibration import Evidence, calibrate
from cion_jax.correlation.proposal import propose
from cion_jax.correlation.results import open_features, read_correlatable
from cion_jax.reporting.correlation_report import calibration_figure
from cion_jax.runtime.files import write_json
from cion_jax.runtime.processes import is_primary
from cion_jax.runtime.progress import progress

CALIBRATION = "calibration.json"
# Multiples of the proposal that are tabulated as well.
_NEIGHBOURS = (0.8, 0.9, 1.1, 1.25)


def calibrate_to(
    out: str | os.PathLike,
    samples: str | os.PathLike,
    features_path: str | os.PathLike,
    *,
    false_links: float = 0.1,
    half_width: int | str | None = 1000,
    given: dict[str, float],
    overwrite: bool = False,
) -> dict:
    """Proposes thresholds; writes `calibration.png` and, last, `calibration.json` into `out`.

    For each threshold the report tabulates the pairs that the proposal, the `given` threshold and neighbouring ones
    would join.

    Args:
        out: folder of the results.
        samples: sample table with `video`, `tracklet` and `frame`.
        features_path: `.npy` `[rows, dim]`, row by row as the table.
        false_links, half_width: as for `cion_jax.correlation.proposal.propose`.
        given: `sigma_cst` and `sigma_drm` in use now.
        overwrite: replace an existing calibration.

    Returns:
        The content of `calibration.json`.

    Raises:
        ValueError: unusable input, too few pairs, or no threshold that separates people.
    """
    started, path = time.perf_counter(), Path(out) / CALIBRATION
    if is_primary() and path.exists() and not overwrite:
        raise ValueError(f"{path} exists: this calibration is complete; to replace it, set overwrite")
    table = read_correlatable(samples)
    if "frame" not in table.columns:
        raise ValueError(f"{samples}: no column frame; who is in one frame says which distances are between people")
    features = open_features(features_path, len(table))
    calibration = calibrate(features, table.videos, table.tracklets, table["frame"], progress=progress)
    found = propose(
        calibration,
        features,
        table.videos,
        table.tracklets,
        false_links=false_links,
        half_width=half_width,
        progress=progress,
    )
    report: dict = {
        "false_links": false_links,
        "half_width": "all" if half_width is None else half_width,
        "tracklets": calibration.tracklets,
        "pairs": calibration.pairs,
        "ceiling": found.ceiling,
        "support": found.support,
    }
    for name, sigma in given.items():
        proposed = getattr(found, name)
        report[name] = {"rate": found.rates[name], **_entry(getattr(calibration, name), proposed, sigma)}
    report["seconds"] = round(time.perf_counter() - started, 3)
    if is_primary():
        path.unlink(missing_ok=True)
        calibration_figure(calibration, report, path.with_suffix(".png"))
        write_json(path, report)
    return report


def _entry(evidence: Evidence, proposed: float, given: float) -> dict:
    """The report's entry of one threshold: the proposal, counts, and a table of thresholds around it."""
    notes = {round(factor * proposed, 4): "" for factor in _NEIGHBOURS} | {given: "given"}
    notes[proposed] = "proposed, given" if proposed == given else "proposed"
    rows = [evidence.at(sigma) | {"note": notes[sigma]} for sigma in sorted(notes)]
    counts = {"same": len(evidence.same), "different": len(evidence.different)}
    return {"proposed": proposed, **counts, "table": rows}
