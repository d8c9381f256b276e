"""Small networks for tests, and compilation without optimisation."""

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.conversion import load_state_dict, state_dict
from cion_jax.models import create_model
from tests.refweights import weight

SIZE = (16, 8)  # height and width of the images that `Tiny` takes


class Tiny(nnx.Module):
    """Pooled colours through two layers, with dropout between them: in train mode its features are wrong."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(12, 32, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.second = nnx.Linear(32, 5, use_bias=False, rngs=rngs)

    def __call__(self, images):
        quarters = images.reshape(len(images), 2, SIZE[0] // 2, 2, SIZE[1] // 2, 3).mean(axis=(2, 4))
        hidden = jnp.tanh(self.first(quarters.reshape(len(images), 12)))
        return self.second(self.drop(hidden))


def paths_in(folder):
    return [str(folder / f"{i}.png") for i in range(10)]


def trained(name):
    """A model in evaluation mode whose statistics and affine values are far from their initial ones."""
    model = create_model(name)
    arrays = state_dict(model)
    # at a scale of 0.8 activations grow with depth until float32 itself is 4e-4 off
    floats = {key: weight(key, array.shape, 0, 0.65) for key, array in arrays.items() if array.dtype.kind == "f"}
    load_state_dict(model, arrays | floats)
    model.eval()
    return model


def compiled(function):
    """As `jax.jit`, without the LLVM optimisations that take longer than they save in a single run."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
