"""Entries of a correlation report: counts, noise, chaining and accuracy of one level."""

import dataclasses
import time

import numpy as np

from cion_jax.correlation import chaining, covisible
from cion_jax.correlation.background import Background
from cion_jax.correlation.levels import LevelResult
from cion_jax.correlation.noise import noise
from cion_jax.correlation.scoring import pairwise_scores
from cion_jax.runtime.arrays import RowArray
from cion_jax.runtime.progress import progress
from cion_jax.samples import SampleTable

# With more identities than this, the pairs of Eq. 2 are counted for a sample of this many.
NOISE_ROWS = 4000
SHOWN = 4  # images that the report lists for either side of a weak link


def level_entry(
    result: LevelResult, table: SampleTable, features: RowArray, frame_ids: np.ndarray | None, settings: dict
) -> dict:
    """Report entry of one level, with its noise."""
    started = time.perf_counter()
    sigmas = {name: settings[name] for name in ("sigma_cst", "sigma_drm")}
    measured = noise(features, result.identities, **sigmas, most_rows=NOISE_ROWS, progress=progress)
    entry = {
        "level": result.level,
        "links": len(result.links),
        "noise": measured.total,
        "noise_consistency": measured.consistency,
        "noise_discrimination": measured.discrimination,
        "noise_standard_error": measured.standard_error,
        "noise_rows": measured.rows,
        "seconds": round(result.seconds, 3),
        "seconds_noise": round(time.perf_counter() - started, 3),
    }
    if frame_ids is not None:
        entry["covisible_links"] = 0 if result.covisible is None else int(result.covisible.sum())
    return entry | identities_entry(result.identities, table, frame_ids)


def identities_entry(identities: np.ndarray, table: SampleTable, frame_ids: np.ndarray | None) -> dict:
    """The part of an entry that the identities `[n]` alone determine, without reading features."""
    kept = int((identities >= 0).sum())
    entry = {
        "identities": len(np.unique(identities[identities >= 0])),
        "images_kept": kept,
        "images_discarded": len(identities) - kept,
        "images_per_identity": chaining.sizes(identities),
    }
    if warning := chaining.chaining_warning(identities):
        entry["warning"] = warning
    if frame_ids is not None:
        entry["covisible_identities"] = covisible.conflicts(frame_ids, table.tracklets, identities)
    if "person" in table.columns:
        entry["pairwise"] = dataclasses.asdict(pairwise_scores(identities, table["person"]))
    return entry


def background_entry(background: Background, without: np.ndarray, table: SampleTable) -> dict:
    """Report entry of the identities that show no person; `without` `[n]` are the identities when they are dropped."""
    entry: dict = {"identities": len(background.identities), "images": int(background.rows.sum())}
    if "person" in table.columns:
        entry["without_person"] = int((table["person"][background.rows] < 0).sum())
        entry["pairwise"] = dataclasses.asdict(pairwise_scores(without, table["person"]))
    return entry


def largest_entry(large: chaining.LargeIdentity, table: SampleTable, before: np.ndarray) -> dict:
    """Report entry of a large identity, with example images; `before` `[n]` are the identities that it links."""
    weakest = [
        {"identities": [a, b], "distance": distance, "images": [_examples(table, before == side) for side in (a, b)]}
        for a, b, distance in large.weakest
    ]
    first = str(table.select([large.row])["file_path"][0])
    return {"images": large.images, "joined": large.groups, "first_image": first, "weakest_links": weakest}


def _examples(table: SampleTable, members: np.ndarray) -> list[str]:
    """Up to `SHOWN` image paths of the rows in the mask `members` `[n]`, evenly spaced from first to last."""
    rows = np.flatnonzero(members)
    spread = np.unique(np.linspace(0, len(rows) - 1, SHOWN).astype(int))
    return table.select(rows[spread])["file_path"].tolist()
