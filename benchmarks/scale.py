"""Correlation at the size of CION-AL and beyond: python -m benchmarks.scale [--images=2500000,10000000]

Writes a made-up crawl (features in float16, and its sample table) into `--folder` and measures `correlate_to` on it as
a user's command runs it: memory-mapped features, noise at every level, results on disk. Then `extend_to` with 1 % more
images, and a search for ten queries. Each step of each size runs in a process of its own; memory is anonymous and
resident. The files take about 0.9 kB per image and are deleted afterwards.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from absl import app, flags

from benchmarks.ceiling import machine
from benchmarks.memory import PeakMemory
from cion_jax.correlation import correlate_to, extend_to
from cion_jax.correlation.searching import search
from cion_jax.samples import SampleTable, write_samples

DIM, PER_TRACKLET, PER_VIDEO, PER_PERSON = 256, 10, 100, 50
STRAY, SPREAD = 0.03, 0.3  # share of images that show somebody else; noise beside a person's direction
STEPS = ("write", "correlate", "extend", "search")
_TRACKLETS_AT_ONCE = 2000


def crawl_files(folder: Path, name: str) -> tuple[Path, Path]:
    """The sample table and the features of a crawl."""
    return folder / f"{name}.parquet", folder / f"{name}.npy"


def write_crawl(folder: Path, name: str, images: int, people: int, first_video: int) -> None:
    """Writes a table and features of `images` images of `people` people; videos are numbered from `first_video`."""
    random, persons = np.random.default_rng(first_video), np.random.default_rng(0)
    directions = persons.standard_normal((people, DIM), np.float32)
    count = images // PER_TRACKLET
    shown = random.integers(0, people, count)
    features = np.lib.format.open_memmap(crawl_files(folder, name)[1], "w+", np.float16, (count * PER_TRACKLET, DIM))
    for first in range(0, count, _TRACKLETS_AT_ONCE):
        person = np.repeat(shown[first : first + _TRACKLETS_AT_ONCE], PER_TRACKLET)
        stray = random.random(len(person)) < STRAY
        person[stray] = random.permutation(person)[stray]
        noise = random.standard_normal((len(person), DIM), np.float32)
        features[first * PER_TRACKLET :][: len(person)] = directions[person] + SPREAD * noise
    features.flush()
    tracklet = np.arange(count * PER_TRACKLET) // PER_TRACKLET
    video = first_video + tracklet // PER_VIDEO
    paths = pa.array(
        f"{v}/{t}/{i % PER_TRACKLET}.jpg" for i, (v, t) in enumerate(zip(video.tolist(), tracklet.tolist()))
    )
    table = SampleTable.from_columns(
        file_path=paths, video=video, tracklet=tracklet, person=np.repeat(shown, PER_TRACKLET)
    )
    write_samples(table, crawl_files(folder, name)[0])


def measured(function: Callable[..., Any], *arguments: Any, **settings: Any) -> tuple[Any, dict[str, float]]:
    """The function's result; its seconds, CPU seconds, and the peak of anonymous memory in GB."""
    memory, started, worked = PeakMemory(), time.perf_counter(), time.process_time()
    result = function(*arguments, **settings)
    cost = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - worked}
    memory.running = False
    return result, cost | {"memory": memory.peak / 1e9}


def correlate_step(folder: Path, half_width: str) -> dict:
    reach = half_width if half_width == "all" else int(half_width)
    report, cost = measured(correlate_to, folder / "A", *crawl_files(folder, "old"), half_width=reach)
    return cost | {"levels": report["levels"]}


def extend_step(folder: Path) -> dict:
    samples, features = crawl_files(folder, "new")
    report, cost = measured(extend_to, folder / "B", folder / "A", samples=samples, features_path=features)
    return cost | {"pairs": report["grown"]["pairs_compared"]}


def search_step(folder: Path) -> dict:
    queries = np.asarray(np.load(crawl_files(folder, "new")[1], mmap_mode="r")[:10])
    return measured(search, folder / "A", queries)[1]


def run_step(step: str, images: int, folder: Path, half_width: str) -> None:
    """Runs one step, and writes what it measured into the folder."""
    if step == "write":
        people = images // PER_PERSON
        write_crawl(folder, "old", images, people, 0)
        write_crawl(folder, "new", images // 100, people, images)
        return
    steps = {
        "correlate": lambda: correlate_step(folder, half_width),
        "extend": lambda: extend_step(folder),
        "search": lambda: search_step(folder),
    }
    (folder / f"{step}.json").write_text(json.dumps(steps[step]()))


def print_rows(rows: dict[int, dict[str, dict]]) -> None:
    """Prints three Markdown tables of what the steps measured, by number of images."""
    print("| images | s | CPU s | levels 0-3, s | their noise, s | peak GB | F1 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for images, row in rows.items():
        whole = row["correlate"]
        levels, noise = (
            " + ".join(f"{level[name]:.1f}" for level in whole["levels"]) for name in ("seconds", "seconds_noise")
        )
        f1 = whole["levels"][-1]["pairwise"]["f1"]
        seconds = f"{whole['seconds']:.0f} | {whole['cpu']:.0f}"
        print(f"| {images:,} | {seconds} | {levels} | {noise} | {whole['memory']:.2f} | {f1:.3f} |")
    print("\n| images | n_S at level 0 | standard error | at level 3 | standard error |")
    print("| --- | --- | --- | --- | --- |")
    for images, row in rows.items():
        levels = row["correlate"]["levels"]
        values = (f"{levels[level][name]:.4f}" for level in (0, 3) for name in ("noise", "noise_standard_error"))
        print(f"| {images:,} | {' | '.join(values)} |")
    print("\n| images | 1 % more, s | CPU s | peak GB | pairs | 10 queries, s | CPU s | peak GB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for images, row in rows.items():
        grown, searched = row["extend"], row["search"]
        extended = f"{grown['seconds']:.0f} | {grown['cpu']:.0f} | {grown['memory']:.2f} | {grown['pairs']:,}"
        found = f"{searched['seconds']:.1f} | {searched['cpu']:.1f} | {searched['memory']:.2f}"
        print(f"| {images:,} | {extended} | {found} |")


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    if values.step:
        run_step(values.step, int(values.images[0]), Path(values.folder), values.half_width)
        return
    rows = {}
    for images in map(int, values.images):
        with tempfile.TemporaryDirectory(dir=values.folder) as folder:
            for step in STEPS:
                own = [f"--images={images}", f"--folder={folder}", f"--half_width={values.half_width}"]
                command = [sys.executable, "-m", "benchmarks.scale", *own, f"--step={step}"]
                subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            rows[images] = {step: json.loads((Path(folder) / f"{step}.json").read_text()) for step in STEPS[1:]}
    print(f"{machine()}; {DIM}-d float16, half width {values.half_width}\n")
    print_rows(rows)


if __name__ == "__main__":
    flags.DEFINE_list("images", ["2500000", "10000000"], "Sizes.")
    flags.DEFINE_string("half_width", "1000", "Of the Sliding Range, or: all.")
    flags.DEFINE_string("folder", None, "Where the files are written; default: the system's temporary folder.")
    flags.DEFINE_enum("step", None, STEPS, "One step of one size, as a process of its own.")
    app.run(main)
