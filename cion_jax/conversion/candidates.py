"""Models that a state dict fits, recognised by its keys and shapes."""

import functools
import importlib
import math
from collections.abc import Mapping

import numpy as np
from flax import nnx

from cion_jax.conversion.state_dict import signature
from cion_jax.models import create_model
from cion_jax.models.registry import FAMILIES, reidzoo

Shapes = dict[str, tuple[int, ...]]


def fitting_models(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the models whose keys and shapes are exactly those of `arrays`.

    Describing a model takes a second or more. So of each family the smallest is looked at, its outermost names only,
    and of the families with the same names the models of about as many parameters.
    """
    shapes = {key: np.shape(value) for key, value in arrays.items()}
    outermost, numbers = _outermost(shapes), sum(math.prod(shape) for shape in shapes.values())
    names = []
    for family in FAMILIES:
        *others, smallest = importlib.import_module(f"cion_jax.models.{family}").MODELS
        if _outermost(_shapes(smallest)) == outermost:
            near = [name for name in (*others, smallest) if _is_near(name, numbers)]
            names += [name for name in near if _shapes(name) == shapes]
    return names


def misfit_hint(arrays: Mapping[str, np.ndarray]) -> str:
    """A sentence that names the model `arrays` belong to, for the error that they don't fit another one."""
    names = fitting_models(arrays)
    if not names:
        return "no model of this package has exactly these keys and shapes"
    return f"these are the keys and shapes of {' or '.join(names)}"


def _is_near(name: str, numbers: int) -> bool:
    """True if the paper's parameter count is within a fifth; statistics and classifiers account for less than that."""
    zoo = reidzoo()
    return name not in zoo or abs(1e6 * zoo[name].params_m - numbers) < 0.2 * numbers


def _outermost(shapes: Shapes) -> set[str]:
    return {key.partition(".")[0] for key in shapes}


@functools.cache
def _shapes(name: str) -> Shapes:
    model = nnx.eval_shape(lambda: create_model(name))
    return {key: shape for key, (shape, _) in signature(model).items()}
