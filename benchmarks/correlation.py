"""Times identity correlation: python -m benchmarks.correlation [--images=100000,300000,1000000]

For every size, in a process of its own and on the machine at hand: the seconds of each level (warm, the second run
of two), beside

- the floor: the arithmetic that the level cannot avoid, at the rate of the fastest float32 matrix product;
- a straightforward NumPy program of the same level (`benchmarks.correlation_numpy`), on a slice, extrapolated by
  images (or by pairs);
- the time that NumPy takes to read all features once, in blocks, and take their norms;

and the most anonymous memory that was resident. Then all pairs, at `--all_pairs` centroids.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from benchmarks.ceiling import best_seconds, machine, matmul_rate
from benchmarks.correlation_numpy import seconds_of_levels
from benchmarks.memory import PeakMemory, anonymous_bytes
from cion_jax.correlation import correlate

DIM, PER_TRACKLET, PER_VIDEO, HALF_WIDTH = 768, 10, 100, 1000
SLICE_IMAGES, SLICE_GROUPS, MOST_GROUPS = 10_000, 500, 30_000  # of the NumPy program


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    with tempfile.TemporaryDirectory(dir=values.folder) as folder:
        rows = [_in_new_process(folder, int(count), values) for count in values.images]
    print(f"{machine()}; {DIM}-d float16, {PER_TRACKLET} images a tracklet, {PER_VIDEO} tracklets a video\n")
    for row in rows:
        print(report(row), "\n")


@dataclasses.dataclass
class World:
    """A made-up crawl: people recur across videos, and some crops of a tracklet show somebody else."""

    features: np.ndarray
    videos: np.ndarray
    tracklets: np.ndarray


def make_world(images: int, path: Path, per_tracklet: int = PER_TRACKLET) -> World:
    """Writes features `[images, DIM]` and maps them."""
    random = np.random.default_rng(images)
    count = images // per_tracklet
    people = random.standard_normal((max(count // 5, 1), DIM), np.float32)
    shown = random.integers(0, len(people), count)
    features = np.lib.format.open_memmap(path, "w+", np.float16, (images, DIM))
    for first in range(0, count, 1000):
        person = np.repeat(shown[first : first + 1000], per_tracklet)
        stray = random.random(len(person)) < 0.03
        person[stray] = random.permutation(person)[stray]
        noise = random.standard_normal((len(person), DIM), np.float32)
        features[first * per_tracklet :][: len(person)] = people[person] + 0.3 * noise
    features.flush()
    tracklets = np.arange(images) // per_tracklet
    return World(np.load(path, mmap_mode="r"), tracklets // PER_VIDEO, tracklets)


def measure(images: int, half_width: int | None, folder: str) -> dict:
    """Everything about one size."""
    per_tracklet = PER_TRACKLET if half_width else 1
    world = make_world(images, Path(folder) / "features.npy", per_tracklet)
    rate, before = matmul_rate(), anonymous_bytes()
    memory = PeakMemory()
    walls = []
    for _ in range(2):
        started = time.perf_counter()
        found = correlate(world.features, world.videos, world.tracklets, half_width=half_width)
        walls.append(time.perf_counter() - started)
    memory.running = False
    rate = max(rate, matmul_rate())  # other work on the machine can only slow it down
    groups = [int(level.identities.max()) + 1 for level in found.levels]
    pairs = _pairs(groups[2], half_width)
    products = [0, images * per_tracklet / 2, images / per_tracklet * PER_VIDEO / 2, pairs]
    return {
        "images": images,
        "half_width": half_width or "all",
        "groups": groups,
        "links": [len(level.links) for level in found.levels],
        "seconds": [level.seconds for level in found.levels],
        "floor": [2 * DIM * count / rate for count in products],
        "numpy": numpy_program(world, per_tracklet, groups[2], half_width),
        "read": read_seconds(world.features),
        "wall": walls,
        "rate": rate,
        "memory": memory.peak,
        "memory_before": before,
    }


def _pairs(groups: int, half_width: int | None) -> float:
    width = min(half_width or groups, groups - 1)
    return groups * width - width * (width + 1) / 2


def read_seconds(features: np.ndarray) -> float:
    """Seconds that NumPy takes to read the features once, in blocks, and take the norms of their rows."""

    def read() -> None:
        for start in range(0, len(features), 8192):
            np.linalg.norm(features[start : start + 8192].astype(np.float32), axis=1)

    return best_seconds(read, repeats=2)


def numpy_program(world: World, per_tracklet: int, groups: int, half_width: int | None) -> list[float]:
    """Seconds of levels 1 to 3 of the NumPy program, extrapolated from a slice to the whole world."""
    images = min(SLICE_IMAGES, len(world.features))
    sequence = min(groups, MOST_GROUPS)
    width = min(half_width or groups, sequence - 1)
    rows = min(SLICE_GROUPS, sequence - width) if half_width else SLICE_GROUPS
    slice_of = (world.features[:images], per_tracklet, PER_VIDEO, sequence, width, rows)
    first, second, third = np.min([seconds_of_levels(*slice_of) for _ in range(3)], axis=0).tolist()
    pairs = sum(min(width, sequence - 1 - row) for row in range(rows))
    scale = len(world.features) / images
    return [0.0, first * scale, second * scale, third * _pairs(groups, half_width) / pairs]


def report(row: dict) -> str:
    """A Markdown table of one size."""
    lines = [
        f"**{row['images']:,} images, half width {row['half_width']}**: "
        f"float32 products {row['rate'] / 1e9:.0f} GFLOP/s, "
        f"NumPy reads and norms {row['read']:.2f} s, peak anonymous memory {row['memory'] / 2**30:.2f} GiB "
        f"({row['memory_before'] / 2**30:.2f} before), whole {row['wall'][1]:.2f} s (first run {row['wall'][0]:.2f} s)",
        "",
        "| level | groups | links | s | floor s | / floor | NumPy s (extrapolated) | NumPy / ours |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for level in (1, 2, 3):
        seconds, floor, plain = row["seconds"][level], row["floor"][level], row["numpy"][level]
        lines.append(
            f"| {level} | {row['groups'][level]:,} | {row['links'][level]:,} | {seconds:.2f} | {floor:.2f} "
            f"| {seconds / floor:.2f} | {plain:.1f} | {plain / seconds:.1f} |"
        )
    both, whole = sum(row["seconds"][1:3]) / row["read"], sum(row["numpy"]) / row["wall"][1]
    lines += ["", f"Levels 1 and 2: {both:.2f} x NumPy's reading; whole: NumPy / ours {whole:.1f}"]
    return "\n".join(lines)


def _in_new_process(folder: str, images: int, values) -> dict:
    """Measures one size where nothing else has left memory behind."""
    out = Path(folder) / "row.json"
    arguments = [f"--one={images}", f"--half_width={values.half_width}", f"--folder={folder}", f"--out={out}"]
    subprocess.run([sys.executable, "-m", "benchmarks.correlation", *arguments], check=True)
    return json.loads(out.read_text())


def start(argv: list[str]) -> None:
    """Measures one size, or all of them."""
    values = flags.FLAGS
    if values.one:
        width = None if values.half_width == "all" else int(values.half_width)
        row = measure(values.one, width, values.folder)
        Path(values.out).write_text(json.dumps(row))
    else:
        main(argv)


if __name__ == "__main__":
    flags.DEFINE_list("images", ["100000", "300000", "1000000"], "Numbers of images.")
    flags.DEFINE_string("half_width", str(HALF_WIDTH), "Of the Sliding Range, or: all (then one image a tracklet).")
    flags.DEFINE_string("folder", None, "Where features are written for a while; they take 1.5 GB a million.")
    flags.DEFINE_integer("one", None, "Internal: measure this size in this process.")
    flags.DEFINE_string("out", None, "Internal: where the numbers go.")
    app.run(start)
