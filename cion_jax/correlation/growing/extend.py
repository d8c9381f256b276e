"""Adding images to a correlation on disk, and removing videos from it."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from cion_jax.correlation import checks, covisible
from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.entries import identities_entry, level_entry
from cion_jax.correlation.growing.grow import Grown, grow
from cion_jax.correlation.growing.index import (
    FeaturePart,
    Index,
    check_same_extractor,
    feature_parts,
    read_index,
    stacked,
    write_index,
)
from cion_jax.correlation.growing.numbers import Change, carry_over, changes
from cion_jax.correlation.growing.state import groups_of
from cion_jax.correlation.levels import LevelResult, correlate
from cion_jax.correlation.results import IDENTITIES, check_unwritten, open_features, read_correlatable, write_results
from cion_jax.runtime.arrays import RowArray
from cion_jax.runtime.files import write_json
from cion_jax.runtime.processes import is_primary
from cion_jax.runtime.progress import progress
from cion_jax.samples import SampleTable, read_samples
from cion_jax.samples.table import pc

CHANGES = "changes.json"
SHOWN = 5  # names listed in an error message


class _Added(NamedTuple):
    """The table and features of added images, and the files of the features."""

    table: SampleTable
    features: RowArray
    parts: list[FeaturePart]


def extend_to(
    out: str | os.PathLike,
    old: str | os.PathLike,
    *,
    samples: str | os.PathLike | None = None,
    features_path: str | os.PathLike | None = None,
    remove: Sequence[str] = (),
    overwrite: bool = False,
) -> dict:
    """Writes into `out` the results in `old` without the videos in `remove`, plus the images of `samples`.

    The identities are those of `correlate_to` over the remaining images and then the added ones, with the settings of
    `old`, but for their numbers: an earlier identity keeps its number, and of several that became one, the lowest
    stays. `changes.json` lists the images whose number changed. Added images are compared with groups of earlier ones
    and with each other only, and nothing in `old` is written to.

    Args:
        out: Output folder; the same files as by `correlate_to`, and `changes.json`.
        old: `out` of an earlier `correlate_to` or `extend_to`.
        samples, features_path: Added images, as for `correlate_to`; all their videos are new. None adds nothing.
        remove: Names of videos; neither rows, features, centroids nor links of them are in `out`.
        overwrite: Replace results that are complete.

    Returns:
        The report: one entry, of level 3, and what has grown.

    Raises:
        ValueError: Unusable input, before any work starts.
    """
    started = time.perf_counter()
    if Path(out).resolve() == Path(old).resolve():
        raise ValueError(f"{out}: it holds the old results, which stay as they are; give another --out")
    check_unwritten(out, overwrite)
    index, table = read_index(old), read_samples(Path(old) / IDENTITIES)
    removed = _rows_of_videos(table, remove, old)
    added = None if samples is None or features_path is None else _read_added(samples, features_path, index)
    joined = _joined(table.select(~removed) if not removed.all() else None, added, old)
    parts = _parts(index, removed, added)
    frame_ids = covisible.number_frames(joined.videos, joined["frame"]) if "frame" in joined.columns else None
    grown, added_entries = _grow(index, removed, added, parts, frame_ids)
    before = np.concatenate([table["identity"][~removed], np.full(len(joined) - np.count_nonzero(~removed), -1)])
    identities = carry_over(grown.identities, before, index.next_identity)
    joined = joined.with_columns(identity=identities)
    changed = _changes(table["identity"], removed, identities)
    report = {
        "images": len(joined),
        "settings": index.settings,
        "levels": [_last_entry(joined, grown, frame_ids)],
        "added": {"images": 0 if added is None else len(added.table), "levels": added_entries},
        "grown": _summary(changed, identities, index, grown, table.select(removed) if removed.any() else None),
        "seconds": round(time.perf_counter() - started, 3),
    }

    def write_state(folder: Path) -> None:
        following = max(index.next_identity, int(identities.max()) + 1)
        about = {"settings": index.settings, "extractor": index.extractor, "next_identity": following}
        write_index(folder, grown.state, identities, parts, **about)
        write_json(folder / CHANGES, [change._asdict() for change in changed])

    if is_primary():
        write_results(Path(out), joined, report, write_state)
    return report


def _rows_of_videos(table: SampleTable, names: Sequence[str], old: str | os.PathLike) -> np.ndarray:
    """Mask `[n]` of the rows of the videos `names`; raises `ValueError` for one that is not there."""
    videos = table.arrow["video"].cast(pa.large_string())
    present = set(pc.unique(videos).to_pylist())
    for name in names:
        if name not in present:
            close = get_close_matches(name, present, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"--remove={name}: {old} has no video of that name{hint}")
    return np.isin(np.asarray(videos), list(names)) if names else np.zeros(len(table), bool)


def _read_added(samples: str | os.PathLike, features_path: str | os.PathLike, index: Index) -> _Added:
    table = read_correlatable(samples)
    features = open_features(features_path, len(table))
    check_same_extractor(index, features_path, features.shape[1])
    checks.check_features(features)
    return _Added(table, features, feature_parts(features_path))


def _joined(kept: SampleTable | None, added: _Added | None, old: str | os.PathLike) -> SampleTable:
    """The kept rows and then the added ones, checked to have the same columns and no video in common."""
    given = [one for one in (kept, added and added.table) if one is not None]
    tables = [one.arrow.select([name for name in one.columns if name != "identity"]) for one in given]
    if not tables:
        raise ValueError(f"{old}: no image would be left; delete the folder instead")
    if differ := sorted({*tables[0].column_names} ^ {*tables[-1].column_names}):
        raise ValueError(
            f"of the added table and that of {old}, only one has {', '.join(differ)}; give the same columns"
        )
    try:
        both = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(f"the added table and that of {old} have columns of different types ({error})") from error
    if len(tables) == 2:
        _check_apart(tables[0], tables[1], old)
    return SampleTable(both)


def _check_apart(kept: pa.Table, added: pa.Table, old: str | os.PathLike) -> None:
    remedies = {"video": "a video is added whole: remove it in the same call", "file_path": "leave these images out"}
    for name, remedy in remedies.items():
        values = pc.unique(added[name])
        both = values.filter(pc.is_in(values, pc.unique(kept[name]))).cast(pa.large_string()).to_pylist()
        if both:
            more = ", ..." if len(both) > SHOWN else ""
            raise ValueError(f"{name} in {old} already: {', '.join(both[:SHOWN])}{more} ({len(both)} in all); {remedy}")


def _parts(index: Index, removed: np.ndarray, added: _Added | None) -> list[FeaturePart]:
    """The feature files of all rows that remain, in order."""
    ends = np.cumsum([len(part) for part in index.parts])
    kept = [part.select(~mask) for part, mask in zip(index.parts, np.split(removed, ends[:-1]))]
    return [part for part in [*kept, *(added.parts if added else [])] if len(part)]


def _grow(
    index: Index,
    removed: np.ndarray,
    added: _Added | None,
    parts: Sequence[FeaturePart],
    frame_ids: np.ndarray | None,
) -> tuple[Grown, list[dict]]:
    """The grown correlation, and the report entries of levels 0 to 2 of the added images."""
    groups, entries = (None, []) if added is None else _within_videos(added, index.settings)

    def track(total: int) -> AbstractContextManager[Callable[[int], None]]:
        return progress("across videos", total, "tiles")

    return grow(index.state.without(removed), groups, stacked(parts), frame_ids, index.settings, track), entries


def _within_videos(added: _Added, settings: dict) -> tuple[Groups, list[dict]]:
    """Eq. 4-6 for the added images: their groups and report entries."""
    table, features, entries = added.table, added.features, []
    frames = table["frame"] if "frame" in table.columns else None
    frame_ids = None if frames is None else covisible.number_frames(table.videos, frames)

    def on_level(result: LevelResult) -> None:
        entries.append(level_entry(result, table, features, frame_ids, settings))

    found = correlate(
        features,
        table.videos,
        table.tracklets,
        **{**settings, "levels": 2},
        frames=frames,
        on_level=on_level,
        progress=progress,
    )
    return groups_of(found.levels[2]), entries


def _changes(earlier: np.ndarray, removed: np.ndarray, identities: np.ndarray) -> list[Change]:
    """Changes of the earlier identities `[old]`; `identities` are of the kept rows and then of added ones."""
    after = np.full(len(earlier), -1)
    after[~removed] = identities[: np.count_nonzero(~removed)]
    return changes(after, earlier)


def _last_entry(table: SampleTable, grown: Grown, frame_ids: np.ndarray | None) -> dict:
    return {"level": 3, "links": len(grown.state.links)} | identities_entry(table["identity"], table, frame_ids)


def _summary(
    changed: Sequence[Change], identities: np.ndarray, index: Index, grown: Grown, removed: SampleTable | None
) -> dict:
    """Counts of what has changed, and what has to be trained again."""
    present = set(np.unique(identities[identities >= 0]).tolist())
    gone = {change.before for change in changed} - present
    merged = {change.before for change in changed if change.after is not None} & gone
    split = {change.before for change in changed if change.after is not None} & present
    summary: dict[str, Any] = {
        "identities_new": sum(number >= index.next_identity for number in present),
        "identities_merged": len(merged),
        "identities_split": len(split),
        "identities_removed": len(gone - merged),
        "pairs_compared": grown.compared,
        "links_added": grown.links_added,
        "images_removed": 0 if removed is None else len(removed),
    }
    if removed is not None:
        seen = removed["identity"]
        summary["train_again"] = (
            f"networks that were trained on these identities have seen {np.count_nonzero(seen >= 0):,} of the removed "
            f"images, of {len(np.unique(seen[seen >= 0])):,} identities: train them again on the new ones, and an "
            f"extractor too if it was trained on them; delete the old results, feature files and images"
        )
    return summary
