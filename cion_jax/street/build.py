"""Renders a street to disk."""

import os
from concurrent.futures import as_completed
from pathlib import Path

import simplejpeg

from cion_jax.runtime.files import atomic_path
from cion_jax.runtime.progress import progress
from cion_jax.runtime.workers import spawned_pool
from cion_jax.samples import write_samples
from cion_jax.street.config import StreetConfig
from cion_jax.street.contact_sheet import write_contact_sheet
from cion_jax.street.plan import Shot, plan_benchmark, plan_crawl, plan_labelled
from cion_jax.street.render import render_shot

_SHOTS_PER_JOB = 64
_CROPS_WORTH_A_PROCESS = 2000  # fewer crops render faster than another process starts


def build_street(config: StreetConfig, out: str | os.PathLike, workers: int | None = None) -> None:
    """Renders a street into the folder `out`, which is written atomically.

    out/labelled/   crops and labelled.parquet (identity, person, video, tracklet, frame)
    out/crawl/      crops and crawl.parquet (video, tracklet, frame; person, or -1 for crops without one)
    out/benchmark/  query/, bounding_box_test/ and an empty bounding_box_train/, named as in Market-1501
    out/contact_sheet.png

    `workers` processes render (by default one per core if there is enough work); the output does not depend on their
    number. With more than one, call this under `if __name__ == "__main__":`.
    """
    labelled, labelled_table = plan_labelled(config)
    crawl, crawl_table = plan_crawl(config)
    benchmark = plan_benchmark(config)
    with atomic_path(out) as folder:
        for name in ("labelled", "crawl", "benchmark/query", "benchmark/bounding_box_test"):
            (folder / name).mkdir(parents=True)
        (folder / "benchmark" / "bounding_box_train").mkdir()
        _render_all(config, folder, labelled + crawl + benchmark, workers)
        write_samples(labelled_table, folder / "labelled" / "labelled.parquet")
        write_samples(crawl_table, folder / "crawl" / "crawl.parquet")
        write_contact_sheet(folder / "contact_sheet.png", folder, labelled_table, crawl_table, benchmark)


def _render_all(config: StreetConfig, folder: Path, shots: list[Shot], workers: int | None) -> None:
    crops = sum(len(shot.files) for shot in shots)
    workers = workers or max(1, min(os.cpu_count() or 1, crops // _CROPS_WORTH_A_PROCESS))
    # Sorted by camera, so that each worker needs only a few of the cameras' backgrounds at a time.
    shots = sorted(shots, key=lambda shot: (shot.population, shot.camera, shot.key))
    jobs = [shots[start : start + _SHOTS_PER_JOB] for start in range(0, len(shots), _SHOTS_PER_JOB)]
    with progress("street", total=crops) as advance:
        if workers == 1:
            for job in jobs:
                advance(_render_job(config, folder, job))
            return
        pool = spawned_pool(workers)
        try:
            for done in as_completed([pool.submit(_render_job, config, folder, job) for job in jobs]):
                advance(done.result())
        finally:
            pool.shutdown(cancel_futures=True)


def _render_job(config: StreetConfig, folder: Path, shots: list[Shot]) -> int:
    written = 0
    for shot in shots:
        root = folder / shot.population.name.lower()
        for image, file in zip(render_shot(config, shot), shot.files, strict=True):
            path = root / file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(simplejpeg.encode_jpeg(image, quality=config.jpeg_quality))
            written += 1
    return written
