"""The cost of a model, counted by XLA."""

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.models.registry import create_model


def gflops(name: str, size: tuple[int, int] = (256, 128)) -> float:
    """Billions of multiply-adds of `create_model(name)` for one image of `size` (height, width), in evaluation.

    Half of the floating-point operations that XLA counts in the program before it optimises it: a multiply-add is
    two, as are two elementwise operations, which papers leave out. Nothing is computed or compiled.
    """
    model = nnx.eval_shape(lambda: create_model(name))
    model.eval()
    graph, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    return floating_point_operations(jax.jit(lambda state, x: nnx.merge(graph, state)(x)).lower(state, images)) / 2e9


def floating_point_operations(lowered: jax.stages.Lowered) -> float:
    """As XLA counts them, in the program as it was traced.

    Raises:
        ValueError: this version of JAX does not count them.
    """
    costs = lowered.cost_analysis()
    if not costs or "flops" not in costs:
        raise ValueError(f"jax {jax.__version__} counts no operations on {jax.default_backend()}")
    return costs["flops"]
