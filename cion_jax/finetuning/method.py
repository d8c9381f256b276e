"""The interface of a fine-tuning method: all that differs between methods, on one training step and one loop.

`cion_jax.finetuning.methods` lists the methods by name, `step` makes the step, and `train` runs it. A method is built
from the settings of its own group of the config, such as `config.supervised`, and holds nothing that training changes:
that is in the parameters, the running statistics and the `memory` of the train state.
"""

import abc
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from cion_jax.distillation.sampler import Sampler
from cion_jax.distillation.schedules import Curriculum
from cion_jax.finetuning.augmentation import Augmentation, augment, augmentation_of
from cion_jax.models.backbone import Backbone
from cion_jax.runtime.config import Config

Tree = Any


class TrainingData(NamedTuple):
    """The images that a run trains on.

    Attributes:
        paths: paths of the images, relative to `root`, `[rows]`.
        root: folder or store of the images.
        labels: int64 `[rows]`, identities as 0, 1, ...; -1 = not used. All -1 where none are known.
        cameras: `[rows]` int64, or None where they are not known.
    """

    paths: np.ndarray
    root: Path
    labels: np.ndarray
    cameras: np.ndarray | None

    @property
    def identities(self) -> int:
        """The number of identities; labels are below it."""
        return int(self.labels.max()) + 1


class Preprocessing(NamedTuple):
    """Height and width in pixels, and mean and standard deviation of RGB in [0, 1] that images are normalised by."""

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def resized(self, height: int | None, width: int | None) -> "Preprocessing":
        """With another height or width, where one is given."""
        return self._replace(size=(height or self.size[0], width or self.size[1]))


class Phase(NamedTuple):
    """The steps from `first_step` on, during which the parts named `frozen` of the network stay as they are.

    `frozen` are attributes of the network. Their parameters get no gradient, and their BatchNorm layers normalise with
    running statistics, which stay too. The method's optimizer must not decay these parameters meanwhile.
    """

    first_step: int
    frozen: tuple[str, ...] = ()


class Relabelled(NamedTuple):
    """The outcome of `Method.relabel`: labels `[rows]` and memory for the coming epoch, and numbers to log."""

    labels: np.ndarray
    memory: Tree
    metrics: Mapping[str, float]


class FineTunedNetwork(nnx.Module):
    """A backbone and the layers that a method adds to it.

    It is called as a backbone is, `network(images) -> [b, embed_dim]`, and returns the embedding that is compared at
    test time, so that extraction, evaluation and export take it in place of one. Attributes are named and ordered as in
    the released PyTorch code, whose state dict is then that of `cion_jax.conversion.state_dict`.
    """

    embed_dim: int

    def training_outputs(self, images: jax.Array) -> Any:
        """The outputs that `Method.loss` takes, for normalised images `[b, h, w, 3]`."""
        raise NotImplementedError

    def __call__(self, images: jax.Array) -> jax.Array:
        """The test embedding `[b, embed_dim]` of normalised images `[b, h, w, 3]`."""
        raise NotImplementedError


class Method(abc.ABC):
    """A fine-tuning method. `settings` is its group of the config.

    `loss` and `augment` are traced within the training step, per device; everything else runs on the host.
    """

    relabels: ClassVar[bool] = False  # whether `relabel` is called before every epoch

    def __init__(self, settings: Config):
        self.settings = settings

    @functools.cached_property
    def _augmentation(self) -> Augmentation:
        return augmentation_of(self.settings)

    @property
    def preprocessing(self) -> Preprocessing:
        """Size and normalisation of images, in training and test."""
        s = self._augmentation
        return Preprocessing(s.size, s.mean, s.std)

    @property
    def positions_size(self) -> tuple[int, int]:
        """Height and width of the images that a ViT's position table is for."""
        return self.preprocessing.size

    @abc.abstractmethod
    def create_network(self, backbone: Backbone, identities: int, rngs: nnx.Rngs) -> FineTunedNetwork:
        """The network to train, around a backbone that already has its pre-trained weights."""

    @abc.abstractmethod
    def plan(self, data: TrainingData, devices: int) -> Curriculum:
        """The number of epochs and of steps in each.

        Raises:
            ValueError: data that the method cannot train on, or a batch that devices cannot share.
        """

    @abc.abstractmethod
    def sampler(self, labels: np.ndarray, data: TrainingData, plan: Curriculum, seed: int) -> Sampler:
        """The rows of every batch; `labels` are the current ones, which differ from `data.labels` after relabelling."""

    @abc.abstractmethod
    def optimizer(self, plan: Curriculum) -> optax.GradientTransformation:
        """The optimizer of all parameters, those that are never trained included (to which it gives no update)."""

    def augment(self, images: jax.Array, sizes: jax.Array, keys: jax.Array) -> jax.Array:
        """Normalised training images `[views * b, h, w, 3]`, view by view.

        Args:
            images: uint8 `[b, canvas height, canvas width, 3]`, each image in the upper left corner.
            sizes: int32 `[b, 2]`, height and width of each image on its canvas.
            keys: typed PRNG keys `[b]`.
        """
        return augment(images, sizes, keys, self._augmentation)

    @abc.abstractmethod
    def loss(
        self, outputs: Any, labels: jax.Array, memory: Tree, *, axis_name: str | None
    ) -> tuple[jax.Array, dict[str, jax.Array], Tree]:
        """The loss of this device's part of the batch; the step averages losses, metrics and gradients over devices.

        Args:
            outputs: `FineTunedNetwork.training_outputs` of this device's images.
            labels: int32 `[views * b]`, their identities.
            memory: the method's memory, equal on all devices.
            axis_name: the mesh axis to gather along where a term needs the global batch; None outside of a mesh.

        Returns:
            The scalar loss, scalar metrics, and the new memory, which must be equal on all devices.
        """

    def concerns(self, metrics: Mapping[str, float]) -> dict[str, str]:
        """Signs of collapse in a line of metrics after the first epoch: descriptions with remedies, by name."""
        del metrics
        return {}

    def phases(self, plan: Curriculum) -> Sequence[Phase]:
        """The phases of training in order; the first starts at step 0."""
        del plan
        return (Phase(0),)

    def initial_memory(self, network: FineTunedNetwork, data: TrainingData) -> Tree:
        """The memory at step 0. Its shapes and dtypes stay the same over the run."""
        del network, data
        return {}

    def relabel(
        self, network: FineTunedNetwork, data: TrainingData, labels: np.ndarray, memory: Tree, *, epoch: int
    ) -> Relabelled:
        """Labels and memory for `epoch`, from the network as it is (in evaluation mode); a pure function of these.

        Called before every epoch if `relabels` is set. A step that is continued within an epoch takes both from the
        checkpoint.
        """
        raise NotImplementedError(f"{type(self).__name__} does not relabel")
