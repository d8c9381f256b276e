"""Methods that learn from labelled identities: batches of P identities with K images of each."""

import numpy as np

from cion_jax.distillation.schedules import Curriculum
from cion_jax.finetuning.method import Method, TrainingData
from cion_jax.finetuning.sampler import PKSampler, plan_epochs


class LabelledMethod(Method):
    """A method whose batches are those of `PKSampler`."""

    def plan(self, data: TrainingData, devices: int) -> Curriculum:
        s = self.settings
        return plan_epochs(
            data.labels,
            batch_size=s.batch_size,
            images_per_identity=s.images_per_identity,
            epochs=s.epochs,
            devices=devices,
        )

    def sampler(self, labels: np.ndarray, data: TrainingData, plan: Curriculum, seed: int) -> PKSampler:
        del data
        return PKSampler(labels, plan, batch_size=self.settings.batch_size, seed=seed)
