"""Times the scoring of retrieval: python -m benchmarks.evaluation [--share=0.25] [--dim=2048] [--rerank]

On made-up float32 features of MSMT17's size (11,659 queries, 82,161 gallery images, 3,060 people, 15 cameras), on the
machine at hand: the seconds of `retrieval_scores`, or with `--rerank` of k-reciprocal re-ranking and scoring, beside

- the floor: the matrix products that it cannot avoid, at the rate of the fastest float32 product of the same run;
- the most anonymous memory that was resident, features included.

`--share` takes a part of queries, gallery and people.
"""

import time

import numpy as np
from absl import app, flags

from benchmarks.ceiling import machine, matmul_rate
from benchmarks.memory import PeakMemory, anonymous_bytes
from cion_jax.evaluation import KReciprocal, retrieval_scores

QUERIES, GALLERY, PEOPLE, CAMERAS = 11_659, 82_161, 3_060, 15
APART = 3.8  # mean similarity of a person's images, in deviations of that of others: mAP is some 65 % at full size


def make_benchmark(share: float, dim: int) -> tuple[np.ndarray, ...]:
    """Features, identities and cameras as `retrieval_scores` takes them; people differ in how often they are seen."""
    random = np.random.default_rng(0)
    queries, gallery, people = (round(share * count) for count in (QUERIES, GALLERY, PEOPLE))
    often = random.exponential(size=people) + 0.1
    ids = random.choice(people, queries + gallery, p=often / often.sum())
    cameras = random.integers(1, CAMERAS + 1, queries + gallery)
    means = random.standard_normal((people, dim), np.float32)
    features = random.standard_normal((queries + gallery, dim), np.float32)
    noise = (dim**0.5 / APART - 1) ** 0.5
    for start in range(0, len(features), 4096):
        features[start : start + 4096] *= noise
        features[start : start + 4096] += means[ids[start : start + 4096]]
    sides = [(array[:queries], array[queries:]) for array in (features, ids, cameras)]
    return tuple(part for side in sides for part in side)


def main(argv: list[str]) -> None:
    del argv
    dim, settings = flags.FLAGS.dim, KReciprocal() if flags.FLAGS.rerank else None
    rate = matmul_rate(inner=dim)
    benchmark = make_benchmark(flags.FLAGS.share, dim)
    before, memory, started = anonymous_bytes(), PeakMemory(), time.perf_counter()
    scores = retrieval_scores(*benchmark, rerank=settings)
    seconds = time.perf_counter() - started
    memory.running = False
    rate = max(rate, matmul_rate(inner=dim))  # other work on the machine can only slow it down
    queries, gallery = len(benchmark[0]), len(benchmark[1])
    products = scores.queries * gallery + ((queries + gallery) ** 2 if settings else 0)
    floor = 2 * dim * products / rate
    what = "k-reciprocal" if settings else "cosine"
    peak, before = (f"{size / 2**30:.2f}" for size in (memory.peak, before))
    print(f"{machine()}; float32 products {rate / 1e9:.0f} GFLOP/s\n")
    print("| queries | gallery | dim | distances | s | floor s | / floor | peak GiB | before GiB | mAP |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    print(
        f"| {queries:,} | {gallery:,} | {dim} | {what} | {seconds:.1f} | {floor:.1f} | {seconds / floor:.2f} | {peak} "
        f"| {before} | {100 * scores.mAP:.1f} % |"
    )


if __name__ == "__main__":
    flags.DEFINE_float("share", 1.0, "Of MSMT17's size.", lower_bound=0.001, upper_bound=1.0)
    flags.DEFINE_integer("dim", 2048, "Numbers in a feature.", lower_bound=32)
    flags.DEFINE_bool("rerank", False, "Measure k-reciprocal re-ranking.")
    app.run(main)
