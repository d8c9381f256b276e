"""Examination of a sample table and its images: counts, problems and remarks."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from cion_jax.runtime.progress import Progress, silent
from cion_jax.samples.contents import contents, in_words, repeated_frames, spread
from cion_jax.samples.images import FINDS_DAMAGE, DamagedImage, UndecodableImage, decode_image
from cion_jax.samples.stores.sources import Images, open_images
from cion_jax.samples.table import EXAMPLES, SampleTable

_IMAGES_PER_JOB = 64
_SMALL = 32  # pixels of height; smaller crops are hardly identifiable


class _ImageScan(NamedTuple):
    """Results of reading and decoding every image.

    sizes: `[n, 2]` int32 height and width, 0 if undecodable. hashes: `[n]` uint64 of the encoded bytes.
    stored: total number of bytes. missing: `[n]` bool. broken, damaged: error messages by row, of undecodable images
    and of JPEGs that are damaged inside.
    """

    sizes: np.ndarray
    hashes: np.ndarray
    stored: int
    missing: np.ndarray
    broken: dict[int, str]
    damaged: dict[int, str]

    @property
    def decodable(self) -> np.ndarray:
        return self.sizes[:, 0] > 0


def examine(table: SampleTable, root: str | os.PathLike, *, progress: Progress = silent) -> dict[str, Any]:
    """Decodes every image of `table` in `root` (see `open_images`) and checks the table for consistency.

    Returns:
        The report that the command writes: `contents` (see `contents`); `images` with `height` and `width` in pixels
        as `[smallest, median, largest]`, `bytes` and `distinct`, the number of different contents; and `problems`
        (errors in the data) and `remarks` (limits on its use), each a list of `{"what", "count", "examples"}`.
    """
    scan = _scan_images(table["file_path"], open_images(root), progress)
    return {
        "contents": contents(table),
        "images": {
            "height": spread(scan.sizes[scan.decodable, 0]),
            "width": spread(scan.sizes[scan.decodable, 1]),
            "bytes": scan.stored,
            "distinct": len(np.unique(scan.hashes[scan.decodable])),
        },
        "problems": _image_problems(table, scan) + _table_problems(table),
        "remarks": _remarks(table, scan),
    }


def _scan_images(paths: np.ndarray, images: Images, progress: Progress) -> _ImageScan:
    names, missing = paths.tolist(), images.missing(paths)
    sizes, hashes = np.zeros((len(paths), 2), np.int32), np.zeros(len(paths), np.uint64)
    broken: dict[int, str] = {}
    damaged: dict[int, str] = {}

    def decoded(data: bytes, row: int) -> np.ndarray:
        try:
            return decode_image(data, name=names[row], strict=True)
        except DamagedImage as error:
            damaged[row] = str(error)
            return decode_image(data, name=names[row])

    def scan_rows(rows: np.ndarray) -> int:
        stored = 0
        for row in rows.tolist():
            try:
                data = images.read(names[row])
                sizes[row] = decoded(data, row).shape[:2]
            except UndecodableImage as error:
                broken[row] = str(error)
                continue
            hashes[row] = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())
            stored += len(data)
        return stored

    rows = np.flatnonzero(~missing)
    jobs = [rows[first : first + _IMAGES_PER_JOB] for first in range(0, len(rows), _IMAGES_PER_JOB)]
    stored = 0
    with progress("doctor", len(rows), "images") as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        for job, size in zip(jobs, pool.map(scan_rows, jobs)):
            stored += size
            advance(len(job))
    return _ImageScan(sizes, hashes, stored, missing, dict(sorted(broken.items())), dict(sorted(damaged.items())))


def _image_problems(table: SampleTable, scan: _ImageScan) -> list[dict[str, Any]]:
    paths = table["file_path"]
    rows = np.flatnonzero(scan.decodable)
    _, first, inverse = np.unique(scan.hashes[rows], return_index=True, return_inverse=True)
    same_as = rows[first][inverse]  # for each of `rows`, the first row with the same content
    copies = rows != same_as
    pairs = [f"{paths[row]} = {paths[other]}" for row, other in zip(rows[copies], same_as[copies])]
    problems = [
        _finding("images that are not there", paths[scan.missing]),
        _finding("images that cannot be decoded", list(scan.broken.values())),
        _finding("JPEGs that are damaged inside", list(scan.damaged.values())),
        _finding("images whose content is that of an earlier row", pairs),
    ]
    for name in ("identity", "person"):
        if name in table.columns:
            labels = table[name]
            differ = copies & (labels[rows] != labels[same_as])
            examples = [
                f"{paths[row]}: {name} {labels[row]}, {paths[other]}: {labels[other]}"
                for row, other in zip(rows[differ], same_as[differ])
            ]
            problems.append(_finding(f"images of the same content but another {name}", examples))
    return [problem for problem in problems if problem["count"]]


def _table_problems(table: SampleTable) -> list[dict[str, Any]]:
    problems = []
    if {"video", "tracklet", "frame"} <= set(table.columns):
        again = table["file_path"][repeated_frames(table)[0]]
        problems.append(_finding("images of a tracklet that is in this frame already", again))
    if "identity" in table.columns and not (table["identity"] >= 0).any():
        problems.append(_finding("images, all of them, are discarded (identity -1)", table["file_path"]))
    return [problem for problem in problems if problem["count"]]


def _remarks(table: SampleTable, scan: _ImageScan) -> list[dict[str, Any]]:
    """Properties of valid data that limit later steps."""
    paths, columns = table["file_path"], set(table.columns)
    remarks = [_finding(f"images less than {_SMALL} pixels high", paths[scan.decodable & (scan.sizes[:, 0] < _SMALL)])]
    if not FINDS_DAMAGE:
        remarks.append(
            _finding("package is not installed: JPEGs that are damaged inside are not found", ["simplejpeg"])
        )
    if "identity" in columns:
        kept = table["identity"] >= 0
        remarks.append(
            _finding("identities of one image, which have no positive pair", _alone(table["identity"][kept]))
        )
    if {"video", "tracklet"} <= columns:
        remarks.append(_finding("tracklets of one image", paths[_alone_rows(table.tracklets)]))
        if table.videos.max() == 0:
            remarks.append(
                _finding("video only: there is nothing to link across videos", table.arrow["video"][:1].to_pylist())
            )
    elif "identity" not in columns:
        remarks.append(
            _finding("columns video and tracklet are not there: correlate needs both", ["video", "tracklet"])
        )
    if "camera" in columns and len(cameras := np.unique(table["camera"])) == 1:
        remarks.append(_finding("camera only: retrieval leaves out matches of the query's own camera", cameras))
    return [remark for remark in remarks if remark["count"]]


def _alone(labels: np.ndarray) -> np.ndarray:
    values, counts = np.unique(labels, return_counts=True)
    return values[counts == 1]


def _alone_rows(codes: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.bincount(codes)[codes] == 1)


def _finding(what: str, examples: Any) -> dict[str, Any]:
    return {"what": what, "count": len(examples), "examples": [str(example) for example in examples[:EXAMPLES]]}


def in_lines(report: dict[str, Any]) -> list[str]:
    """The report of `examine` as readable lines."""
    counts, images = report["contents"], report["images"]
    lines = [in_words(counts)]
    for name in ("tracklet", "identity"):
        if sizes := counts.get(f"images_per_{name}"):
            lines.append(f"images per {name}: {_in_numbers(sizes)}")
    if counts.get("discarded"):
        lines.append(f"{counts['discarded']:,} images are discarded (identity -1)")
    if images["height"]:
        stored = f"{images['bytes'] / 2**20:,.1f} MiB"
        lines.append(f"height {_in_numbers(images['height'])}; width {_in_numbers(images['width'])}; {stored}")
    for sign, kind in (("note", "remarks"), ("WRONG", "problems")):
        for finding in report[kind]:
            lines.append(f"{sign}: {finding['count']:,} {finding['what']}")
            lines += [f"    {example}" for example in finding["examples"]]
            if finding["count"] > len(finding["examples"]):
                lines.append("    ...")
    lines.append("something is wrong" if report["problems"] else "nothing is wrong")
    return lines


def _in_numbers(values: list[float]) -> str:
    low, middle, high = values
    return f"{low:,.0f} to {high:,.0f}, median {middle:,.0f}"
