"""Which rule survives chaining at scale.

    python -m benchmarks.chaining --samples=S.parquet --features=F.npy [--tracklets=10000000] [--half_width=1000]

Measures, on a crawl with known people, the distances between groups after Eq. 6 of the same person and of different
people, in different videos. Then simulates the link graph of `--tracklets` groups: each person has `--per_person`
groups close together in the sliding range of half width `--half_width`; pairs of them are linked as often, and at such
distances, as measured; any two groups in the range are linked falsely as often as measured. False links are
independent here, while real ones repeat between people who look alike, so a real crawl can be worse. For the rule
`constrained`, three groups in a row share a frame.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from absl import app, flags

from cion_jax.correlation import closure, correlate, pairwise_scores, rules
from cion_jax.correlation.growing.state import groups_of
from cion_jax.correlation.results import open_features
from cion_jax.samples import SampleTable, read_samples

SIGMAS = (0.14, 0.16, 0.18, 0.20, 0.22)
SHARING = 3  # groups of a frame


class Distances(NamedTuple):
    """Cosine distances between groups in different videos, ascending."""

    same: np.ndarray
    different: np.ndarray


class Graph(NamedTuple):
    """A simulated link graph: the person of each group, links, their distances, and (group, frame) pairs."""

    people: np.ndarray
    links: np.ndarray
    distances: np.ndarray
    frames: np.ndarray


def measure(table: SampleTable, features: np.ndarray) -> Distances:
    """Distances between the groups of a crawl; a group shows the person of most of its images."""
    groups = groups_of(correlate(features, table.videos, table.tracklets, levels=2).levels[2])
    rows = np.flatnonzero(groups.assigned >= 0)
    votes = np.zeros((len(groups.sums), table["person"].max() + 2), np.int32)  # column 0: nobody
    np.add.at(votes, (groups.assigned[rows], table["person"][rows] + 1), 1)
    person, video = votes.argmax(1), np.empty(len(groups.sums), np.int64)
    video[groups.assigned[rows]] = table.videos[rows]
    units = groups.centroids.directions(slice(None))
    left, right = np.triu_indices(len(units), 1)
    apart = (video[left] != video[right]) & (person[left] > 0) & (person[right] > 0)
    left, right = left[apart], right[apart]
    distances, same = 1 - (units @ units.T)[left, right], person[left] == person[right]
    return Distances(np.sort(distances[same]), np.sort(distances[~same]))


def simulate(measured: Distances, sigma: float, groups: int, per_person: int, half_width: int) -> Graph:
    """The link graph of `groups` groups at a threshold."""
    random = np.random.default_rng(0)
    # A person's groups lie at random places of one stretch of the sliding range.
    stretch = min(half_width, groups)
    people = np.concatenate([random.permutation(stretch) // per_person + s for s in range(0, groups, stretch)])[:groups]
    by_person = np.argsort(people, kind="stable")
    true = [np.stack([by_person[:-k], by_person[k:]], 1) for k in range(1, per_person)]
    true = np.concatenate([pairs[people[pairs[:, 0]] == people[pairs[:, 1]]] for pairs in true])
    near = measured.same[measured.same <= sigma]
    true = true[random.random(len(true)) < len(near) / len(measured.same)]
    closest = measured.different[measured.different <= sigma]
    count = random.poisson(groups * half_width * len(closest) / len(measured.different))
    false = random.integers(0, groups, count)
    false = np.stack([false, (false + random.integers(1, half_width + 1, count)) % groups], 1)
    distances = np.concatenate(
        [random.choice(near, len(true)), random.choice(closest, count) if count else closest[:0]]
    )
    frames = np.stack([np.arange(groups), np.arange(groups) // SHARING], 1)
    return Graph(people, np.sort(np.concatenate([true, false]), axis=1), distances, frames)


def identities(graph: Graph) -> dict[str, Callable[[], np.ndarray]]:
    """The identities of each rule."""
    count, links, distances = len(graph.people), graph.links, graph.distances

    def mutual(neighbors: int) -> np.ndarray:
        return closure.groups(count, links[rules.mutual(count, links, distances, neighbors)])

    return {
        "closure": lambda: closure.groups(count, links),
        "mutual 3": lambda: mutual(3),
        "mutual 5": lambda: mutual(5),
        "constrained": lambda: rules.constrained(count, links, distances, graph.frames),
    }


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    table = read_samples(values.samples)
    measured = measure(table, open_features(values.features, len(table)))
    size = values.tracklets, values.per_person, values.half_width
    print("| sigma_drm | recall of pairs | false per comparison | rule | precision | recall | largest identity | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for sigma in SIGMAS:
        graph = simulate(measured, sigma, *size)
        rates = f"{np.mean(measured.same <= sigma):.3f} | {np.mean(measured.different <= sigma):.1e}"
        for name, rule in identities(graph).items():
            started = time.perf_counter()
            found = rule()
            seconds, scores = time.perf_counter() - started, pairwise_scores(found, graph.people)
            result = f"{scores.precision:.3f} | {scores.recall:.3f} | {np.bincount(found).max():,} | {seconds:.0f}"
            print(f"| {sigma:.2f} | {rates} | {name} | {result} |", flush=True)


if __name__ == "__main__":
    flags.DEFINE_string("samples", None, "Sample table with frames and people.", required=True)
    flags.DEFINE_string("features", None, "Its features (.npy).", required=True)
    flags.DEFINE_integer("tracklets", 10_000_000, "Groups of the simulated crawl.", lower_bound=100)
    flags.DEFINE_integer("per_person", 5, "Groups of one person.", lower_bound=2)
    flags.DEFINE_integer("half_width", 1000, "Half width of the Sliding Range.", lower_bound=1)
    app.run(main)
