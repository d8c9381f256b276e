"""Calibration of the two thresholds, written as `calibration.json` and `calibration.png`."""

import os
import time
from pathlib import Path

from cion_jax.correlation.calibration import Evidence, calibrate
from cion_jax.correlation.checks import check_rate
from cion_jax.correlation.results import open_features, read_correlatable
from cion_jax.reporting.correlation_report import calibration_figure
from cion_jax.runtime.files import write_json
from cion_jax.runtime.processes import is_primary
from cion_jax.runtime.progress import progress

# Multiples of the stated rate whose thresholds are tabulated as well.
_RATES = (10, 3, 1, 1 / 3)


def calibrate_to(
    out: str | os.PathLike,
    samples: str | os.PathLike,
    features_path: str | os.PathLike,
    *,
    false_link_rate: float = 1e-3,
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
        false_link_rate: share of the pairs of different people that may join.
        given: `sigma_cst` and `sigma_drm` in use now.
        overwrite: replace an existing calibration.

    Returns:
        The content of `calibration.json`.

    Raises:
        ValueError: unusable input, or too few pairs for the rate (see `cion_jax.correlation.calibration`).
    """
    started, path = time.perf_counter(), Path(out) / "calibration.json"
    check_rate(false_link_rate)
    if is_primary() and path.exists() and not overwrite:
        raise ValueError(f"{path} exists: this calibration is complete; to replace it, set overwrite")
    table = read_correlatable(samples)
    if "frame" not in table.columns:
        raise ValueError(f"{samples}: no column frame; who is in one frame says which distances are between people")
    features = open_features(features_path, len(table))
    calibration = calibrate(features, table.videos, table.tracklets, table["frame"], progress=progress)
    report: dict = {"false_link_rate": false_link_rate, "tracklets": calibration.tracklets, "pairs": calibration.pairs}
    for name, sigma in given.items():
        report[name] = _proposal(getattr(calibration, name), false_link_rate, sigma)
    report["seconds"] = round(time.perf_counter() - started, 3)
    if is_primary():
        path.unlink(missing_ok=True)
        calibration_figure(calibration, report, path.with_suffix(".png"))
        write_json(path, report)
    return report


def _proposal(evidence: Evidence, false_link_rate: float, given: float) -> dict:
    """The report's entry of one threshold: the proposal, counts, and a table of thresholds around it."""
    proposed = evidence.threshold(false_link_rate)
    notes = {given: "given"}
    for rate in (factor * false_link_rate for factor in _RATES):
        if 1 / len(evidence.different) <= rate < 1:
            notes.setdefault(evidence.threshold(rate), "")
    notes[proposed] = "proposed, given" if proposed == given else "proposed"
    rows = [evidence.at(sigma) | {"note": notes[sigma]} for sigma in sorted(notes)]
    counts = {"same": len(evidence.same), "different": len(evidence.different)}
    return {"proposed": proposed, **counts, "table": rows}
