"""Finds the identities in a sample table (Sec. 3.1-3.2 of the paper).

python -m cion_jax.correlate --samples=S --features=F.npy --out=DIR [--sigma_cst=0.2] [--sigma_drm=0.18]
                             [--half_width=1000|all] [--levels=0|1|2|3] [--forbid_covisible] [--overwrite]
"""

import sys

from absl import flags
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cion_jax.correlation import correlate_to
from cion_jax.runtime.commands import run


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    report = correlate_to(
        values.out,
        values.samples,
        values.features,
        sigma_cst=values.sigma_cst,
        sigma_drm=values.sigma_drm,
        half_width=_half_width(values.half_width),
        levels=values.levels,
        forbid_covisible=values.forbid_covisible,
        overwrite=values.overwrite,
    )
    print_summary(report)
    print(f"Results: {values.out}")


def print_summary(report: dict) -> None:
    """Prints a report of `correlate_to` as one table, a row for each level.

    False links join tracklets that one frame shows both of, and so do identities in conflict, where frames are known.
    P, R and F1 are precision, recall and F1 over pairs of images, where the true persons are known.
    """
    title = f"{report['images']:,} images, {report['seconds']:.1f} s"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    scored = all("pairwise" in entry for entry in report["levels"])
    framed = all("covisible_identities" in entry for entry in report["levels"])
    names = ["level", "identities", "kept", "discarded", "n_S", "n_cst", "n_drm", "s"]
    for name in names + ["false links", "in conflict"] * framed + ["P", "R", "F1"] * scored:
        table.add_column(name, justify="right")
    for entry in report["levels"]:
        counts = [entry[name] for name in ("level", "identities", "images_kept", "images_discarded")]
        noises = [entry[name] for name in ("noise", "noise_consistency", "noise_discrimination")]
        scores = [entry["pairwise"][name] for name in ("precision", "recall", "f1")] if scored else []
        cells = [f"{count:,}" for count in counts] + [f"{value:.3f}" for value in noises]
        cells.append(f"{entry['seconds']:.1f}")
        cells += [f"{entry[name]:,}" for name in ("covisible_links", "covisible_identities") if framed]
        table.add_row(*cells, *(f"{score:.1%}" for score in scores))
    wide_enough = None if sys.stdout.isatty() else 120  # a file or pipe has no width
    console = Console(width=wide_enough)
    console.print(table)
    for entry in report["levels"]:
        if "warning" in entry:
            console.print(f"[yellow]Level {entry['level']}:[/] {entry['warning']}")


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
    flags.DEFINE_bool("overwrite", False, "Replace results that are in the folder already.")
    run(main)
