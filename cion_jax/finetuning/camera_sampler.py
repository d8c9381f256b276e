"""The camera-aware sampler of Cluster-Contrast: a batch is a pure function of the labels, the seed and the step."""

import numpy as np

from cion_jax.distillation.sampler import Sampler
from cion_jax.distillation.schedules import Curriculum, Stage


class CameraSampler(Sampler):
    """Batches of K images per cluster, of which K - 1 come from other cameras than the first, where there are any.

    A pass over the data has one run for each cluster, in random order. A run is a random image (the anchor) and K - 1
    others, never the anchor again: of another camera than the anchor's if the cluster has such images, else any.
    They are drawn without repetition if there are at least K of them, else with it. A cluster of one image has a run of
    one. Batches are cut from the sequence of runs; the remainder of a pass is dropped and another pass begun, until the
    epoch has `steps` batches. Passes shorter than a batch are joined.

    These are the rules of the released RandomMultipleGallerySampler, "K of them" instead of K - 1 among them.
    """

    def __init__(
        self,
        labels: np.ndarray,
        cameras: np.ndarray,
        plan: Curriculum,
        *,
        batch_size: int,
        images_per_cluster: int,
        seed: int,
    ):
        """
        Args:
            labels: cluster of each row, `[rows]`, at least one; rows of -1 are never drawn.
            cameras: camera of each row, `[rows]`; all equal where they are not known.
            plan: epochs and their steps.
            batch_size: images of a global batch.
            images_per_cluster: K.
            seed: random seed.
        """
        self._clusters = [np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])]
        self._cameras = np.asarray(cameras)
        self._batch_size, self._k = batch_size, images_per_cluster
        super().__init__(plan, seed)

    def _draw_epoch(self, rng: np.random.Generator, stage: Stage) -> np.ndarray:
        """Rows of all batches of an epoch, `[steps, batch_size, 1]`: runs may be cut, so groups are of one."""
        steps, batches = stage.steps_per_epoch, []
        while len(batches) < steps:
            rows = self._pass(rng)
            while len(rows) < self._batch_size:
                rows = np.append(rows, self._pass(rng))
            full = len(rows) // self._batch_size
            batches += np.split(rows[: full * self._batch_size], full)
        return np.stack(batches[:steps])[..., None]

    def _pass(self, rng: np.random.Generator) -> np.ndarray:
        """One run of each cluster, in random order, `[images]`."""
        order = rng.permutation(len(self._clusters))
        return np.concatenate([self._run(self._clusters[place], rng) for place in order])

    def _run(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        anchor = rng.choice(rows)
        others = rows[self._cameras[rows] != self._cameras[anchor]]
        if not len(others):
            others = rows[rows != anchor]
        if not len(others):
            return np.array([anchor])
        return np.append(anchor, rng.choice(others, self._k - 1, replace=len(others) < self._k))
