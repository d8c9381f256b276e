"""Inputs and networks of the fine-tuning reference (tests/reference/finetune), in float64."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cion_jax.conversion import load_state_dict, state_dict
from cion_jax.finetuning.gem import GeM
from tests.refweights import image, uniform

FOLDER = Path(__file__).parent / "reference" / "finetune"


def read_json(name):
    return json.loads((FOLDER / name).read_text())


def symmetric(name, shape, scale=1.0):
    return scale * (2 * uniform(name, shape) - 1)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def pixels(name, shape):
    """Normalised images, NHWC."""
    return jnp.asarray(np.ascontiguousarray(image(name, shape).transpose(0, 2, 3, 1)))


def gem_of(x, p, cotangent):
    """Pooled NCHW maps `[b, c]`, and the gradients of their product with the cotangent by maps and p."""

    def pooled(x, p):
        layer = GeM()
        layer.p.set_value(p)
        return layer(jnp.moveaxis(x, 1, -1))

    out, pull = jax.vjp(pooled, jnp.asarray(x), jnp.full(1, p))
    return out, *pull(jnp.asarray(cotangent).reshape(out.shape))


def fill(network, values):
    """Makes a network float64 and sets those of its tensors for which `values(key, shape)` is not None."""
    for _, variable in nnx.iter_graph(network):
        if isinstance(variable, nnx.Variable) and jnp.issubdtype(variable.dtype, jnp.floating):
            variable.set_value(jnp.asarray(variable.get_value(), jnp.float64))
    arrays = state_dict(network)
    for key, value in arrays.items():
        given = values(key, value.shape) if value.dtype == np.float64 else None
        arrays[key] = value if given is None else given
    load_state_dict(network, arrays)


def functional(network, loss):
    """Parameters and statistics of a network, and jitted functions of these: gradients in training, and test features.

    `gradients(params, stats, images, labels, memory)` gives the gradients and `(outputs, value, stats, rest)`, where
    `loss(outputs, labels, memory)` gives `(value, rest)`; parts named `frozen` are in evaluation mode.
    """
    network.train()
    structure, params, stats = nnx.split(network, nnx.Param, nnx.BatchStat)

    @functools.partial(jax.jit, static_argnames="frozen")
    def gradients(params, stats, images, labels, memory=None, frozen=()):
        def loss_of(params):
            params = {key: jax.lax.stop_gradient(value) if key in frozen else value for key, value in params.items()}
            model = nnx.merge(structure, params, stats, copy=True)
            for part in frozen:
                getattr(model, part).eval()
            outputs = model.training_outputs(images)
            value, rest = loss(outputs, labels, memory)
            return value, (outputs, value, nnx.as_pure(nnx.state(model, nnx.BatchStat)), rest)

        return jax.grad(loss_of, has_aux=True)(params)

    @jax.jit
    def features(params, stats, images):
        model = nnx.merge(structure, params, stats, copy=True)
        model.eval()
        return model(images)

    return nnx.as_pure(params), nnx.as_pure(stats), gradients, features
