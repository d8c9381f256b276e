"""The camera-aware sampler of Cluster-Contrast: the rows of an epoch are a pure function of (seed, epoch)."""

import numpy as np


class CameraSampler:
    """Batches of K images per cluster, of which K - 1 come from other cameras than the first, where there are any.

    A pass over the data has one run for each cluster, in random order. A run is a random image (the anchor) and K - 1
    others, never the anchor again: of another camera than the anchor's if the cluster has such images, else any.
    They are drawn without repetition if there are at least K of them, else with it. A cluster of one image has a run of
    one. Batches are cut from the sequence of runs; the remainder of a pass is dropped and another pass begun, until the
    epoch has `steps` batches. Passes shorter than a batch are joined.

    These are the rules of the released RandomMultipleGallerySampler, "K of them" instead of K - 1 among them.
    """

    def __init__(self, cameras: np.ndarray, *, batch_size: int, images_per_cluster: int, steps: int, seed: int):
        """
        Args:
            cameras: camera of each row, `[rows]`; all equal where they are not known.
            batch_size: images of a global batch.
            images_per_cluster: K.
            steps: batches of an epoch.
            seed: random seed.

        Raises:
            ValueError: a batch does not hold whole runs.
        """
        if batch_size % images_per_cluster:
            raise ValueError(
                f"a batch of {batch_size} holds no whole number of clusters with {images_per_cluster} images; use a "
                f"multiple of {images_per_cluster}"
            )
        self._cameras, self._batch_size, self._k = np.asarray(cameras), batch_size, images_per_cluster
        self._steps, self._seed = steps, seed

    def epoch(self, epoch: int, labels: np.ndarray) -> np.ndarray:
        """Rows `[steps, batch_size]` of an epoch.

        Args:
            epoch: number of the epoch.
            labels: cluster of each row in this epoch, `[rows]`, at least one; rows of -1 are never drawn.
        """
        clusters = [np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])]
        rng = np.random.default_rng((self._seed, epoch))
        batches: list[np.ndarray] = []
        while len(batches) < self._steps:
            rows = self._pass(clusters, rng)
            while len(rows) < self._batch_size:
                rows = np.append(rows, self._pass(clusters, rng))
            full = len(rows) // self._batch_size
            batches += np.split(rows[: full * self._batch_size], full)
        return np.stack(batches[: self._steps])

    def _pass(self, clusters: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """One run of each cluster, in random order, `[images]`."""
        return np.concatenate([self._run(clusters[place], rng) for place in rng.permutation(len(clusters))])

    def _run(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        anchor = rng.choice(rows)
        others = rows[self._cameras[rows] != self._cameras[anchor]]
        if not len(others):
            others = rows[rows != anchor]
        if not len(others):
            return np.array([anchor])
        return np.append(anchor, rng.choice(others, self._k - 1, replace=len(others) < self._k))
