"""Finds the identities in a sample table (Sec. 3.1-3.2 of the paper).

    python -m cion_jax.correlate --samples=S --features=F.npy --out=DIR [--sigma_cst=0.2] [--sigma_drm=0.18]
                                 [--half_width=1000|all] [--levels=0|1|2|3] [--forbid_covisible] [--images=DIR]
                                 [--overwrite]
    python -m cion_jax.correlate --samples=S --features=F.npy --out=DIR --calibrate [--false_links=0.1]
                                 [--half_width=1000|all]

The second form proposes both thresholds for the features of any extractor; the table needs a `frame` column. With
`--adapt`, either form first centers the features by video and whitens them, into DIR/features.npy.
"""

import os
from pathlib import Path

import jax
from absl import flags

from cion_jax.correlation import correlate_to
from cion_jax.correlation.results import IDENTITIES, open_features, read_correlatable
from cion_jax.features.adaptation import adapt_to
from cion_jax.reporting.calibration import calibrate_to
from cion_jax.reporting.correlation_report import identities_sheet, print_calibration, print_summary
from cion_jax.runtime.commands import run
from cion_jax.runtime.processes import is_primary
from cion_jax.samples import read_samples


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    paths = values.out, values.samples, _features(values)
    given = {"sigma_cst": values.sigma_cst, "sigma_drm": values.sigma_drm}
    if values.calibrate:
        report = calibrate_to(
            *paths,
            false_links=values.false_links,
            half_width=_half_width(values.half_width),
            given=given,
            overwrite=values.overwrite,
        )
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


def draw_identities(out: str | os.PathLike, images: str | os.PathLike | None) -> None:
    """Draws `identities.png` if an image root is given; removes the drawing of replaced results."""
    sheet = Path(out) / "identities.png"
    sheet.unlink(missing_ok=True)
    if images is not None:
        unreadable = identities_sheet(read_samples(Path(out) / IDENTITIES), images, sheet)
        if unreadable is None:
            print("No identity is in several videos: no contact sheet.")
        elif unreadable:
            print(f"Contact sheet: {unreadable} images are missing or cannot be decoded.")


def _features(values: flags.FlagValues) -> str | os.PathLike:
    """The features to correlate: those given, or adapted from them."""
    if not values.adapt:
        return values.features
    if jax.process_count() > 1:
        raise ValueError("--adapt runs in one process; adapt with --calibrate first, then give DIR/features.npy")
    adapted, table = Path(values.out) / "features.npy", read_correlatable(values.samples)
    adapt_to(adapted, open_features(values.features, len(table)), table, {"adapted_from": str(values.features)})
    return adapted


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
    flags.DEFINE_float("false_links", 0.1, "With --calibrate: links to other people that a group may have on average.")
    flags.DEFINE_bool("adapt", False, "Center the features by video and whiten them first.")
    flags.DEFINE_bool("overwrite", False, "Replace results that are in the folder already.")
    run(main, shares_work=True)
