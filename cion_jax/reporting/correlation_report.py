"""Reports of correlation and calibration: terminal tables, histograms and a contact sheet."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.table import Table

from cion_jax.correlation.calibration import CONFIDENCE, Calibration
from cion_jax.correlation.results import IDENTITIES
from cion_jax.reporting.figures import contact_sheet, histograms
from cion_jax.reporting.terminal import new_console, new_table
from cion_jax.samples import SampleTable, UndecodableImage, open_images, read_samples
from cion_jax.samples.stores.sources import Images

_SHEET_ROWS, _SHEET_COLUMNS, _SHEET_LARGEST = 12, 14, 4
_BINS = np.linspace(0, 2, 101)
_LEFT = "level", "identities", "kept", "discarded", "n_S", "n_cst", "n_drm", "s"
_COUNTS = "level", "identities", "images_kept", "images_discarded"
_FRAMES = {"covisible_links": "false links", "covisible_identities": "in conflict"}
_SCORES = {"precision": "P", "recall": "R", "f1": "F1", "purity": "purity"}


def print_summary(report: dict) -> None:
    """Prints a report of `correlate_to`: counts and noise per level, and accuracy where frames or persons are known.

    False links join tracklets that appear in the same frame; identities in conflict contain such tracklets. P, R and
    F1 are precision, recall and F1 over pairs of images; purity is the share of images that show the most frequent
    person of their identity.
    """
    console = new_console()
    table = new_table(f"{report['images']:,} images, {report['seconds']:,.1f} s", *_LEFT)
    for entry in report["levels"]:
        noises = (f"{entry[name]:.3f}" for name in ("noise", "noise_consistency", "noise_discrimination"))
        table.add_row(*(f"{entry[name]:,}" for name in _COUNTS), *noises, f"{entry['seconds']:,.1f}")
    console.print(table)
    errors = [entry for entry in report["levels"] if entry.get("noise_standard_error")]
    if errors:
        by_level = ", ".join(f"{entry['noise_standard_error']:.2g} at level {entry['level']}" for entry in errors)
        rows = f"{errors[0]['noise_rows']:,} identities"
        console.print(f"n_drm is estimated from {rows}; standard error {by_level}.", highlight=False)
    framed, scored = (all(name in entry for entry in report["levels"]) for name in ("covisible_links", "pairwise"))
    if framed or scored:
        console.print(_quality(report["levels"], framed, scored))
    if report.get("background", {}).get("identities"):
        console.print(background_line(report), highlight=False)
    for entry in report["levels"]:
        if "warning" in entry:
            console.print(f"[yellow]Level {entry['level']}:[/] {entry['warning']}")


def background_line(report: dict) -> str:
    """The identities that show no person, in words."""
    found = report["background"]
    line = f"{found['identities']:,} identities with {found['images']:,} images show no person"
    if "without_person" in found:
        line += f" (by the labels, {found['without_person']:,} of the images do not)"
    line += ", and were dropped" if found["dropped"] else "; --drop_background discards them"
    if "pairwise" in found:
        before, after = report["levels"][-1]["pairwise"]["precision"], found["pairwise"]["precision"]
        line += f". Precision {before:.1%} with them, {after:.1%} without"
    return f"{line}."


def _quality(levels: list[dict], framed: bool, scored: bool) -> Table:
    """Accuracy of each level, by tracklets that share a frame and by true persons."""
    frames, scores = _FRAMES if framed else {}, _SCORES if scored else {}
    table = new_table("Accuracy", "level", *frames.values(), *scores.values())
    for entry in levels:
        counts = (f"{entry[name]:,}" for name in ("level", *frames))
        table.add_row(*counts, *(f"{entry['pairwise'][name]:.1%}" for name in scores))
    return table


def print_growth(report: dict) -> None:
    """Prints a report of `extend_to`: identities before and after, and what has to be trained again."""
    console, grown, last = new_console(), report["grown"], report["levels"][-1]
    table = new_table(f"{report['images']:,} images, {report['seconds']:,.1f} s", "", "")
    table.add_row("images added", f"{report['added']['images']:,}")
    table.add_row("images removed", f"{grown['images_removed']:,}")
    for name in ("new", "merged", "split", "removed"):
        table.add_row(f"identities {name}", f"{grown[f'identities_{name}']:,}")
    table.add_row("identities now", f"{last['identities']:,}")
    table.add_row("pairs of groups compared", f"{grown['pairs_compared']:,}")
    console.print(table)
    for text in (last.get("warning"), grown.get("train_again")):
        if text:
            console.print(f"[yellow]Note:[/] {text}", soft_wrap=True)


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


def print_calibration(report: dict) -> None:
    """Prints a report of `calibrate_to`: a table per threshold, with the proposed value marked."""
    console = new_console()
    for name in ("sigma_cst", "sigma_drm"):
        title = f"{name}: {report[name]['proposed']}, from a false-link rate of {report[name]['rate']:.2g}"
        bounded = f"below ({CONFIDENCE:.0%})"
        table = new_table(title, name, "same joined", "share", "different joined", "share", bounded, "")
        for row in report[name]["table"]:
            same, different = (
                (f"{row[f'{kind}_joined']:,} of {report[name][kind]:,}", f"{row[f'{kind}_share']:{digits}}")
                for kind, digits in (("same", ".1%"), ("different", ".3%"))
            )
            bound = f"{row['different_share_below']:.3%}"
            table.add_row(f"{row['sigma']:.4f}", *same, *different, bound, row["note"])
        console.print(table)
    sample = f"{report['tracklets']:,} tracklets and {report['pairs']:,} pairs that share a frame"
    rule = f"Up to {report['false_links']:g} false links per group, half width {report['half_width']}"
    bound = (
        f"sigma_drm was at most {report['ceiling']} by this; {report['support']:.0%} of the pairs it joins are links"
    )
    console.print(f"From {sample}. {rule}: {bound}.", highlight=False)


def calibration_figure(calibration: Calibration, report: dict, out: str | os.PathLike) -> None:
    """Writes a PNG with histograms of same-person and different-person distances for each threshold."""
    panels, marks = {}, {}
    for name, same, different in (
        ("sigma_cst", "image to its own tracklet", "image to another in its frame"),
        ("sigma_drm", "halves of a tracklet", "tracklets that share a frame"),
    ):
        evidence, sigma = getattr(calibration, name), report[name]["proposed"]
        label = f"distance, and {name} = {sigma}"
        panels[label], marks[label] = {same: evidence.same, different: evidence.different}, sigma
    histograms(panels, out, marks=marks, bins=_BINS)


def identities_sheet(table: SampleTable, images: str | os.PathLike, out: str | os.PathLike) -> int | None:
    """Writes a contact sheet of identities in several videos: the largest, where false links show, and some others.

    Each row shows crops of one identity, from as many of its videos as fit.

    Args:
        table: samples with identities.
        images: folder of files or store, as for `open_images`.
        out: PNG file.

    Returns:
        The number of images skipped because they cannot be decoded, or None (and no file is written) if no identity is
        in several videos.
    """
    rows, captions, unreadable = [], [], 0
    videos, source = table.videos, open_images(images)
    for identity, members, shown in sheet_rows(table["identity"], videos):
        paths = table["file_path"][shown]
        rows.append([path for path in paths if _readable(source, path)])
        unreadable += len(paths) - len(rows[-1])
        captions.append(f"identity {identity}: {len(members)} crops in {len(np.unique(videos[members]))} videos")
    if not rows:
        return None
    if not any(rows):
        raise ValueError(f"{images}: none of {unreadable} images can be read; is this the table's image root?")
    contact_sheet(rows, out, captions=captions, load=source.load)
    return unreadable


def sheet_rows(identities: np.ndarray, videos: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields (identity, its table rows, rows to show) for the identities in several videos that fit on a sheet."""
    for identity in _across_videos(identities, videos).tolist():
        members = np.flatnonzero(identities == identity)
        yield identity, members, _from_all_videos(members, videos[members])


def _across_videos(identities: np.ndarray, videos: np.ndarray) -> np.ndarray:
    """Identities in several videos that fit on a sheet: the largest, then others spread evenly."""
    kept = identities >= 0
    sizes = np.bincount(identities[kept])
    pairs = np.unique(identities[kept] * (np.int64(videos.max()) + 1) + videos[kept]) // (videos.max() + 1)
    across = np.flatnonzero(np.bincount(pairs) > 1)
    largest = across[np.argsort(-sizes[across], kind="stable")][:_SHEET_LARGEST]
    others = np.setdiff1d(across, largest)
    return np.concatenate([largest, _spread(others, _SHEET_ROWS - len(largest))])


def _from_all_videos(members: np.ndarray, videos: np.ndarray) -> np.ndarray:
    """Rows of an identity that fit on a sheet, ordered by video: one from each video before a second from any."""
    order = np.argsort(videos, kind="stable")
    members, videos = members[order], videos[order]
    turn = np.arange(len(videos)) - np.searchsorted(videos, videos)  # index within the video
    if np.count_nonzero(turn == 0) > _SHEET_COLUMNS:  # more videos than columns
        return _spread(members[turn == 0], _SHEET_COLUMNS)
    return members[np.sort(np.lexsort((videos, turn))[:_SHEET_COLUMNS])]


def _spread(values: np.ndarray, count: int) -> np.ndarray:
    """Returns up to `count` evenly spaced values."""
    return values[np.linspace(0, len(values) - 1, min(count, len(values))).astype(int)]


def _readable(source: Images, path: str) -> bool:
    try:
        source.load(path)
    except UndecodableImage:
        return False
    return True
