"""How fast the images of an epoch are clustered: python -m benchmarks.clustering [--images=32621] [--dim=2048]

On made-up float32 features, by default as many as MSMT17 has training images (1,041 people): the seconds of
Cluster-Contrast's `cluster` (k-reciprocal Jaccard distances and DBSCAN), beside

- the floor: the matrix product that it cannot avoid, at the rate of the fastest float32 product of the same run;
- the most anonymous memory that was resident, features included.
"""

import time

import numpy as np
from absl import app, flags

from benchmarks.ceiling import machine, matmul_rate
from benchmarks.memory import PeakMemory
from cion_jax.finetuning.pseudo_labels import ClusterSettings, cluster

IMAGES, PEOPLE = 32_621, 1_041
LATENT = 64  # features lie near a subspace of so many dimensions, in which people overlap


def make_features(images: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Features `[images, dim]` and the people they show, some 31 images of each."""
    random = np.random.default_rng(0)
    people = max(2, images * PEOPLE // IMAGES)
    ids = random.integers(0, people, images)
    latent = random.standard_normal((people, LATENT), np.float32)[ids]
    latent += random.standard_normal(latent.shape, np.float32)
    features = latent @ random.standard_normal((LATENT, dim), np.float32) / LATENT**0.5
    features += 0.3 * random.standard_normal(features.shape, np.float32)
    return features, ids


def main(argv: list[str]) -> None:
    del argv
    images, dim = flags.FLAGS.images, flags.FLAGS.dim
    rate = matmul_rate(inner=dim)
    features, ids = make_features(images, dim)
    memory, started = PeakMemory(), time.perf_counter()
    found = cluster(features, ClusterSettings(eps=0.7), truth=ids)
    seconds = time.perf_counter() - started
    memory.running = False
    floor = 2 * dim * images**2 / max(rate, matmul_rate(inner=dim))
    assert found.scores is not None
    print(f"{machine()}\n")
    print("| images | dim | s | floor s | peak GiB | clusters | outliers | pairwise precision | recall |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    print(
        f"| {images:,} | {dim} | {seconds:.1f} | {floor:.1f} | {memory.peak / 2**30:.2f} | {found.clusters:,} "
        f"| {found.outliers:,} | {found.scores.precision:.1%} | {found.scores.recall:.1%} |"
    )


if __name__ == "__main__":
    flags.DEFINE_integer("images", IMAGES, "Images to cluster.", lower_bound=100)
    flags.DEFINE_integer("dim", 2048, "Numbers in a feature.", lower_bound=32)
    app.run(main)
