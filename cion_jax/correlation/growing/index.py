"""The state of a correlation on disk, from which it can grow and be searched.

The folder `index` holds

    index.json       settings, feature files and their extractor, and the first number that no identity has had
    groups.npy       [n] int32: the group after Eq. 6 of each image, -1 = discarded
    identities.npy   [groups] int32: the identity of each group
    centroids.npy    [groups, d] float32: sums of the unit features of each group, in sliding order
    links.npy        [links, 2] int32: pairs of groups that Eq. 7 links
    features-<k>.npy features of this folder's own: those that remain of a file from which videos were removed
"""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.growing.state import State
from cion_jax.features.store import check_extractor, extractor_of, feature_files
from cion_jax.runtime.arrays import ArrayWriter, StackedArray
from cion_jax.runtime.files import atomic_path, read_json, write_json

FOLDER = "index"
_META = "index.json"
_GROUPS, _IDENTITIES, _CENTROIDS, _LINKS = "groups.npy", "identities.npy", "centroids.npy", "links.npy"
_ROWS_PER_COPY = 2**16
_PROBES = 256  # rows whose bytes identify a feature file


@dataclasses.dataclass(frozen=True)
class FeaturePart:
    """A feature file `[rows, d]`, and the rows of it that are used, None = all."""

    path: Path
    array: np.ndarray
    kept: np.ndarray | None = None

    def select(self, kept: np.ndarray) -> "FeaturePart":
        """The part with the rows in the mask `kept` only."""
        return self if kept.all() else dataclasses.replace(self, kept=np.flatnonzero(kept))

    def __len__(self) -> int:
        return len(self.array) if self.kept is None else len(self.kept)


@dataclasses.dataclass(frozen=True)
class Index:
    """An index that was read; arrays are memory-mapped.

    Attributes:
        state: Groups after Eq. 6 and their links.
        identities: `[groups]`, the identity of each group.
        parts: The feature files, in the order of the rows.
        settings: Of the correlation.
        extractor: Network, weights and preprocessing of the features; None if they have no description.
        next_identity: The first number that no identity has had.
    """

    state: State
    identities: np.ndarray
    parts: list[FeaturePart]
    settings: dict[str, Any]
    extractor: dict[str, Any] | None
    next_identity: int


def write_index(
    out: Path,
    state: State,
    identities: np.ndarray,
    parts: Sequence[FeaturePart],
    *,
    settings: dict[str, Any],
    extractor: dict[str, Any] | None,
    next_identity: int,
) -> None:
    """Writes the folder `index` in `out` atomically; removed rows of features are not copied.

    Args:
        out: Folder of the results.
        state, parts, settings, extractor, next_identity: As in `Index`.
        identities: `[n]`, the identity of each image.
    """
    of_group = np.empty(len(state.groups.sums), np.int32)
    present = state.groups.assigned >= 0
    of_group[state.groups.assigned[present]] = identities[present]
    with atomic_path(out / FOLDER) as folder:
        folder.mkdir()
        features = [_stored(part, folder, number) for number, part in enumerate(parts) if len(part)]
        np.save(folder / _GROUPS, state.groups.assigned.astype(np.int32, copy=False))
        np.save(folder / _IDENTITIES, of_group)
        np.save(folder / _CENTROIDS, state.groups.sums)
        np.save(folder / _LINKS, state.links.astype(np.int32))
        meta = {"settings": settings, "extractor": extractor, "features": features, "next_identity": next_identity}
        write_json(folder / _META, meta)


def read_index(out: str | os.PathLike) -> Index:
    """Reads what `write_index` wrote into `out`.

    Raises:
        ValueError: There is no index, or a feature file is missing or is not the one that was correlated.
    """
    folder = Path(out) / FOLDER
    if not (folder / _META).exists():
        raise ValueError(f"{out}: no index; give the --out of a cion_jax.correlate that ran all levels to its end")
    meta = read_json(folder / _META)
    names = _GROUPS, _IDENTITIES, _CENTROIDS, _LINKS
    assigned, identities, sums, links = (np.load(folder / name, mmap_mode="r") for name in names)
    parts = [_opened(folder, part) for part in meta["features"]]
    state = State(Groups(np.asarray(assigned), sums), np.asarray(links), np.arange(len(sums)))
    return Index(state, np.asarray(identities), parts, meta["settings"], meta["extractor"], meta["next_identity"])


def feature_parts(path: str | os.PathLike) -> list[FeaturePart]:
    """The files of some features, whole and memory-mapped."""
    return [FeaturePart(file.resolve(), np.load(file, mmap_mode="r")) for file in feature_files(path)]


def stacked(parts: Sequence[FeaturePart]) -> StackedArray:
    """The features of all parts as one array, where they are."""
    return StackedArray([part.array for part in parts], [part.kept for part in parts])


def check_same_extractor(index: Index, features: str | os.PathLike, dim: int) -> None:
    """Raises ValueError unless a feature file is of the index's extractor, by its description, and of its dimension."""
    expected = index.state.groups.sums.shape[1]
    if dim != expected:
        raise ValueError(f"{features}: features of dimension {dim}, the index has {expected}; use the same extractor")
    own = extractor_of(features)
    if own is not None and index.extractor is not None:
        check_extractor(own, index.extractor, features)
    elif own is not index.extractor:
        one, other = ("the index's", "these") if own is None else ("these", "the index's")
        raise ValueError(
            f"{features}: {one} features have a description of their extractor and {other} have none, so it "
            f"is unknown whether they match; extract both with cion_jax.extract"
        )


def _stored(part: FeaturePart, folder: Path, number: int) -> dict[str, Any]:
    """Keeps a part reachable from `folder` and returns its entry."""
    own = f"features-{number}.npy"
    if part.kept is not None:
        with open(folder / own, "wb") as file:
            writer = ArrayWriter(file, part.array.dtype)
            for first in range(0, len(part.kept), _ROWS_PER_COPY):
                writer.append(part.array[part.kept[first : first + _ROWS_PER_COPY]])
            writer.finish()
        return _entry(own, np.load(folder / own, mmap_mode="r"))
    if part.path.parent.name != FOLDER:  # a file of the user's, which stays where it is
        return _entry(str(part.path), part.array)
    try:
        os.link(part.path, folder / own)  # the earlier index may be deleted
    except OSError:
        shutil.copyfile(part.path, folder / own)
    return _entry(own, part.array)


def _entry(path: str, array: np.ndarray) -> dict[str, Any]:
    return {"path": path, "rows": len(array), "sha256_of_probes": _fingerprint(array)}


def _opened(folder: Path, entry: dict[str, Any]) -> FeaturePart:
    path = folder / entry["path"]  # an absolute path stays what it is
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: features of the index cannot be read ({error}); bring the file back") from error
    if len(array) != entry["rows"] or _fingerprint(array) != entry["sha256_of_probes"]:
        raise ValueError(f"{path}: not the features that were correlated; restore them, or correlate from scratch")
    return FeaturePart(path, array)


def _fingerprint(array: np.ndarray) -> str:
    """SHA-256 of some rows, evenly spaced; hashing a whole file would take minutes at 10 M images."""
    rows = np.unique(np.linspace(0, len(array) - 1, _PROBES).astype(np.int64))
    return hashlib.sha256(np.ascontiguousarray(array[rows]).tobytes() + str(array.dtype).encode()).hexdigest()
