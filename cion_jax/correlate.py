"""Finds the identities in a sample table (Sec. 3.1-3.2 of the paper).

python -m cion_jax.correlate --samples=S --features=F.npy --out=DIR [--sigma_cst=0.2] [--sigma_drm=0.18]
                             [--half_width=1000|all] [--levels=0|1|2|3] [--forbid_covisible] [--images=DIR]
                             [--overwrite]
python -m cion_jax.correlate --samples=S --features=F.npy --out=DIR --calibrate [--false_link_rate=1e-3]

The second form proposes both thresholds for features of any extractor; the table needs the column `frame`.
"""

import os
import time
from pathlib import Path

from absl import flags

from cion_jax.correlation import correlate_to
from cion_jax.correlation.calibration import Evidence, calibrate
from cion_jax.correlation.checks import check_rate
from cion_jax.correlation.results import IDENTITIES, open_features, read_correlatable
from cion_jax.reporting.correlation_report import calibration_figure, identities_sheet, print_calibration, print_summary
from cion_jax.runtime.commands import run
from cion_jax.runtime.files import write_json
from cion_jax.runtime.processes import is_primary
from cion_jax.runtime.progress import progress
from cion_jax.samples import read_samples

# Around the stated rate, what a looser and a stricter one would propose.
_RATES = (10, 3, 1, 1 / 3)


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    paths = values.out, values.samples, values.features
    given = {"sigma_cst": values.sigma_cst, "sigma_drm": values.sigma_drm}
    if values.calibrate:
        report = calibrate_to(*paths, false_link_rate=values.false_link_rate, given=given, overwrite=values.overwrite)
        if is_primary():
            print_calibration(report)
            print(f"Results: {values.out}")
        return
    report = correlate_to(
        *paths,
        **given,
        half_width=_half_width(values.half_width),
        levels=values.levels,
        forbid_covisible=values.forbid_covisible,
        overwrite=values.overwrite,
    )
    if is_primary():
        print_summary(report)
        draw_identities(values.out, values.images)
        print(f"Results: {values.out}")


def calibrate_to(
    out: str | os.PathLike,
    samples: str | os.PathLike,
    features_path: str | os.PathLike,
    *,
    false_link_rate: float = 1e-3,
    given: dict[str, float],
    overwrite: bool = False,
) -> dict:
    """Proposes thresholds; writes `calibration.png` and, last, `calibration.json` into `out`. Returns the latter.

    Each threshold gets a table of what it and others around it would join; so do those `given`. Raises `ValueError`
    on unusable input, and where there is too little to tell (see `cion_jax.correlation.calibration`).
    """
    started, path = time.perf_counter(), Path(out) / "calibration.json"
    check_rate(false_link_rate)
    if is_primary() and path.exists() and not overwrite:
        raise ValueError(f"{path} exists: this calibration is complete; to replace it, set overwrite")
    table = read_correlatable(samples)
    if "frame" not in table.columns:
        raise ValueError(f"{samples}: no column frame; who is in one frame says which distances are between people")
    features = open_features(features_path, len(table))
    found = calibrate(features, table.videos, table.tracklets, table["frame"], progress=progress)
    report: dict = {"false_link_rate": false_link_rate, "tracklets": found.tracklets, "pairs": found.pairs}
    for name, sigma in given.items():
        report[name] = _proposal(getattr(found, name), false_link_rate, sigma)
    report["seconds"] = round(time.perf_counter() - started, 3)
    if is_primary():
        path.unlink(missing_ok=True)
        calibration_figure(found, report, path.with_suffix(".png"))
        write_json(path, report)
    return report


def _proposal(evidence: Evidence, false_link_rate: float, given: float) -> dict:
    """What the report says about one threshold."""
    proposed = evidence.threshold(false_link_rate)
    notes = {given: "given"}
    for rate in (factor * false_link_rate for factor in _RATES):
        if 1 / len(evidence.different) <= rate < 1:
            notes.setdefault(evidence.threshold(rate), "")
    notes[proposed] = "proposed, given" if proposed == given else "proposed"
    rows = [evidence.at(sigma) | {"note": notes[sigma]} for sigma in sorted(notes)]
    counts = {"same": len(evidence.same), "different": len(evidence.different)}
    return {"proposed": proposed, **counts, "table": rows}


def draw_identities(out: str | os.PathLike, images: str | os.PathLike | None) -> None:
    """Writes `identities.png` where there are images to draw, and removes the one of results that were replaced."""
    sheet = Path(out) / "identities.png"
    sheet.unlink(missing_ok=True)
    if images is not None:
        unreadable = identities_sheet(read_samples(Path(out) / IDENTITIES), images, sheet)
        if unreadable is None:
            print("No identity is in several videos: no contact sheet.")
        elif unreadable:
            print(f"Contact sheet: {unreadable} images are missing or cannot be decoded.")


def _half_width(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text


if __name__ == "__main__":
    flags.DEFINE_string("samples", None, "Sample table with video and tracklet.", required=True)
    flags.DEFINE_string("features", None, "Features (.npy) of the rows of the table.", required=True)
    flags.DEFINE_string("out", None, "Folder for the results.", required=True)
    flags.DEFINE_float("sigma_cst", 0.2, "Images leave at this cosine distance (Eq. 4, 5).")
    flags.DEFINE_float("sigma_drm", 0.18, "Groups merge up to this cosine distance (Eq. 6, 7).")
    flags.DEFINE_string("half_width", "1000", "Half width of the Sliding Range (Eq. 7), or: all.")
    flags.DEFINE_integer("levels", 3, "Last level: 0 tracklets, 1 Eq. 4, 2 Eq. 5-6, 3 Eq. 7.")
    flags.DEFINE_bool("forbid_covisible", False, "Leave out links of tracklets that share a frame.")
    flags.DEFINE_string("images", None, "Image root: draws some identities found across videos.")
    flags.DEFINE_bool("calibrate", False, "Propose sigma_cst and sigma_drm instead, from tracklets and frames.")
    flags.DEFINE_float("false_link_rate", 1e-3, "With --calibrate: share of pairs of different people that may join.")
    flags.DEFINE_bool("overwrite", False, "Replace results that are in the folder already.")
    run(main, shares_work=True)
