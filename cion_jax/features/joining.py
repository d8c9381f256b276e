"""Joins the feature files that `cion_jax.extract --shard=i/n` wrote into one, equal to that of a single call."""

import os
import re
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cion_jax.features.store import EXAMPLES, aligned_samples, shard_file
from cion_jax.runtime.arrays import ArrayWriter
from cion_jax.runtime.files import atomic_path, read_json, write_json
from cion_jax.runtime.progress import Progress, silent
from cion_jax.runtime.shards import Shard
from cion_jax.samples import SampleTable, read_samples, write_samples

_OWN = ("rows", "undecodable", "undecodable_examples")  # fields that differ between the parts of one feature file
_ROWS_PER_COPY = 65536


def join(out: str | os.PathLike, *, copy: bool = True, progress: Progress = silent) -> dict[str, Any]:
    """Joins the shards of `out` (`.npy`) in order: features, sample table and, last, the description.

    Without `copy`, the features stay in the shards, which the description lists as `parts`; correlation reads them as
    one file, `cion_jax.features.store.feature_files` names them, and other programs need the copy.

    Returns:
        The description.

    Raises:
        ValueError: a part is missing or incomplete, or the parts differ in samples, model or preprocessing.
    """
    out = Path(out)
    parts = _parts(out)
    reports = [read_json(part.with_suffix(".json")) for part in parts]
    for part, report in zip(parts, reports):
        _check_same(parts[0], reports[0], part, report)
    out.with_suffix(".json").unlink(missing_ok=True)
    if copy:
        _copy(out, parts, reports, progress)
    else:
        out.unlink(missing_ok=True)
    write_samples(_joined_samples(parts), aligned_samples(out))
    whole = {name: value for name, value in reports[0].items() if name != "shard"}
    for name in ("rows", "undecodable"):
        whole[name] = sum(report[name] for report in reports)
    whole["undecodable_examples"] = list(chain(*(report["undecodable_examples"] for report in reports)))[:EXAMPLES]
    if not copy:
        whole["parts"] = [part.name for part in parts]
    write_json(out.with_suffix(".json"), whole)
    return whole


def _copy(out: Path, parts: list[Path], reports: list[dict[str, Any]], progress: Progress) -> None:
    """Writes the rows of all parts into `out`."""
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        writer = ArrayWriter(file, np.dtype(reports[0]["dtype"]))
        with progress("join", sum(report["rows"] for report in reports), "rows") as advance:
            for part in parts:
                features = np.load(part, mmap_mode="r")
                for first in range(0, len(features), _ROWS_PER_COPY):
                    writer.append(block := features[first : first + _ROWS_PER_COPY])
                    advance(len(block))
        writer.finish()


def _parts(out: Path) -> list[Path]:
    """The parts of `out` in order, checked to be complete."""
    name = re.compile(re.escape(out.stem) + r"\.shard-(\d+)-of-(\d+)\.npy")
    counts = {int(match[2]) for file in out.parent.glob("*.npy") if (match := name.fullmatch(file.name))}
    if len(counts) != 1:
        found = f"parts of {' and of '.join(map(str, sorted(counts)))}; remove those of another run" if counts else ""
        raise ValueError(f"{out}: {found or 'no part of it is there; write them with cion_jax.extract --shard=i/n'}")
    (count,) = counts
    parts = [shard_file(out, Shard(index, count)) for index in range(count)]
    if absent := [str(index) for index, part in enumerate(parts) if not part.with_suffix(".json").exists()]:
        raise ValueError(
            f"{out}: {len(absent)} of {count} parts are missing or not complete: {', '.join(absent)}; "
            f"run cion_jax.extract again with --shard=i/{count} for each of them"
        )
    return parts


def _check_same(first_part: Path, first: dict[str, Any], part: Path, report: dict[str, Any]) -> None:
    def shared(of: dict[str, Any]) -> dict[str, Any]:
        values = {name: value for name, value in of.items() if name not in _OWN and name != "shard"}
        return values | {"samples listed": of["shard"]["paths_sha256"]}

    ours, theirs = shared(first), shared(report)
    if ours != theirs:
        names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        raise ValueError(
            f"{part} was made in another way than {first_part}: {', '.join(names)} differ; extract one of them again"
        )


def _joined_samples(parts: list[Path]) -> SampleTable:
    tables = [read_samples(aligned_samples(part)).arrow for part in parts]
    return SampleTable(pa.concat_tables(tables), source="the joined parts")
