"""Finds the identities in a sample table (Sec. 3.1-3.2 of the paper).

    python -m cion_jax.correlate --samples=S --features=F.npy --out=DIR [--sigma_cst=0.2] [--sigma_drm=0.18]
                                 [--half_width=1000|all] [--levels=0|1|2|3] [--forbid_covisible]
                                 [--rule=closure|constrained|mutual|hdbscan] [--drop_background] [--images=DIR]
                                 [--overwrite]
    python -m cion_jax.correlate --extend=OLD --samples=NEW --features=NEW.npy --out=DIR [--remove=VIDEO]
    python -m cion_jax.correlate --extend=OLD --remove=VIDEO --out=DIR
    python -m cion_jax.correlate --samples=S --features=F.npy --out=DIR --calibrate [--false_links=0.1]
                                 [--half_width=1000|all]

`--extend` adds images to an earlier result, or removes videos from it, with the settings of that result. The last form
proposes both thresholds for the features of any extractor; the table needs a `frame` column. With `--adapt`, features
are first centered by video and whitened, into DIR/features.npy.
"""

from pathlib import Path
from typing import Any

import jax
from absl import flags

from cion_jax.correlation import correlate_to, extend_to
from cion_jax.correlation.results import open_features, read_correlatable
from cion_jax.correlation.rules import NEIGHBORS, RULES
from cion_jax.features.adaptation import adapt_to
from cion_jax.reporting.calibration import calibrate_to
from cion_jax.reporting.correlation_report import draw_identities, print_calibration, print_growth, print_summary
from cion_jax.runtime.commands import run
from cion_jax.runtime.processes import is_primary

SETTINGS = (
    *("sigma_cst", "sigma_drm", "half_width", "levels", "forbid_covisible", "rule", "neighbors", "drop_background"),
)


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    _check(values)
    inputs: dict[str, Any] = {"samples": values.samples, "features_path": values.features}
    inputs["overwrite"] = values.overwrite
    if values.adapt:
        inputs["features_path"] = _adapted(values)
    settings: dict[str, Any] = {name: getattr(values, name) for name in SETTINGS}
    settings["half_width"] = _half_width(values.half_width)
    if values.calibrate:
        given = {name: settings[name] for name in ("sigma_cst", "sigma_drm")}
        rule = {"false_links": values.false_links, "half_width": settings["half_width"]}
        show = print_calibration
        report = calibrate_to(values.out, **inputs, **rule, given=given)
    elif values.extend:
        show = print_growth
        report = extend_to(values.out, values.extend, **inputs, remove=values.remove)
    else:
        show = print_summary
        report = correlate_to(values.out, **inputs, **settings)
    if is_primary():
        show(report)
        if not values.calibrate:
            draw_identities(values.out, values.images)
        print(f"Results: {values.out}")


def _check(values: flags.FlagValues) -> None:
    """Raises ValueError for flags that do not go together."""
    if (values.samples is None) != (values.features is None):
        raise ValueError("--samples and --features belong together; give both")
    if not values.extend:
        if values.remove:
            raise ValueError("--remove takes videos out of an earlier result; name it with --extend=OLD")
        if values.samples is None:
            raise ValueError("give the images to correlate: --samples and --features")
        return
    if values.samples is None and not values.remove:
        raise ValueError("--extend needs images to add (--samples, --features) or videos to take out (--remove)")
    if own := [name for name in (*SETTINGS, "calibrate", "adapt") if values[name].present]:
        raise ValueError(f"--{own[0]} does not go with --extend, which keeps the settings of {values.extend}")


def _adapted(values: flags.FlagValues) -> Path:
    """The features centered by video and whitened, written to `--out`."""
    if jax.process_count() > 1:
        raise ValueError("--adapt runs in one process; adapt with --calibrate first, then give DIR/features.npy")
    out, table = Path(values.out) / "features.npy", read_correlatable(values.samples)
    adapt_to(out, open_features(values.features, len(table)), table, {"adapted_from": str(values.features)})
    return out


def _half_width(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text


if __name__ == "__main__":
    flags.DEFINE_string("samples", None, "Sample table with video and tracklet.")
    flags.DEFINE_string("features", None, "Features (.npy) of the rows of the table.")
    flags.DEFINE_string("out", None, "Folder for the results.", required=True)
    flags.DEFINE_float("sigma_cst", 0.2, "Images leave at this cosine distance (Eq. 4, 5).")
    flags.DEFINE_float("sigma_drm", 0.18, "Groups merge up to this cosine distance (Eq. 6, 7).")
    flags.DEFINE_string("half_width", "1000", "Half width of the Sliding Range (Eq. 7), or: all.")
    flags.DEFINE_integer("levels", 3, "Last level: 0 tracklets, 1 Eq. 4, 2 Eq. 5-6, 3 Eq. 7.")
    flags.DEFINE_bool("forbid_covisible", False, "Leave out links of tracklets that share a frame.")
    flags.DEFINE_bool("drop_background", False, "Discard identities that show no person.")
    flags.DEFINE_enum("rule", "closure", RULES, "How links become identities; closure is the paper's rule.")
    flags.DEFINE_integer("neighbors", NEIGHBORS, "With --rule=mutual: links join groups among so many nearest.")
    flags.DEFINE_string("extend", None, "Folder of an earlier result; the new images are added to it.")
    flags.DEFINE_multi_string("remove", [], "With --extend: a video to take out; may be given several times.")
    flags.DEFINE_string("images", None, "Image root: draws some identities found across videos.")
    flags.DEFINE_bool("calibrate", False, "Propose sigma_cst and sigma_drm instead, from tracklets and frames.")
    flags.DEFINE_float("false_links", 0.1, "With --calibrate: links to other people that a group may have on average.")
    flags.DEFINE_bool("adapt", False, "Center the features by video and whiten them first.")
    flags.DEFINE_bool("overwrite", False, "Replace results that are in the folder already.")
    run(main, shares_work=True)
