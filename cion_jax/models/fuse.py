"""Re-parameterisation: a trained model as a smaller and faster one that computes the same embeddings.

In evaluation a batch normalisation is a fixed affine map, and a convolution with such maps, parallel
convolutions and a shortcut around it is again one convolution. `fuse` goes through a model from its leaves up and
replaces

- a module that has a method `fused()` by what that returns; its children are fused before it is called;
- pairs of attributes `(convolution, BatchNorm right behind it)` that a class names in `folds`, and such
  neighbours in an `nnx.Sequential`, by the folded convolution and an `Identity`, so that all other tensors
  keep their names.

The other functions here are what families write `fused()` with. They compute on the host in float64 and return
new layers of float32.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cion_jax.models.definition_order import record_definition_order
from cion_jax.models.layers import BatchNorm, Conv, Identity, Linear

Model = TypeVar("Model", bound=nnx.Module)
# a child of the module whose fused() is running: declared as what it was, by now a convolution or projection
Fused = Any


def fuse(model: Model) -> Model:
    """A copy of `model`, in evaluation mode, with everything folded that folds; `model` stays as it is.

    Embeddings agree up to rounding. Normalisations that depend on the image stay: LayerNorm, InstanceNorm, and
    with it IBN as a whole. What is folded has no running statistics any more and does not come back in training
    mode: fine-tune first, then fuse.
    """
    copy = nnx.clone(model)
    copy.eval()
    fused = nnx.recursive_map(lambda path, node: _fused(node), copy)
    record_definition_order(fused)
    return fused


def _fused(node: Any) -> Any:
    if isinstance(node, nnx.Sequential):
        for i in range(len(node.layers) - 1):
            node.layers[i], node.layers[i + 1] = _folded_pair(node.layers[i], node.layers[i + 1])
    for first, second in getattr(node, "folds", ()):
        layer, norm = _folded_pair(getattr(node, first), getattr(node, second))
        setattr(node, first, layer)
        setattr(node, second, norm)
    fused = getattr(node, "fused", None)
    return node if fused is None else fused()


def _folded_pair(layer: Any, norm: Any) -> tuple[Any, Any]:
    foldable = isinstance(layer, (Conv, Linear)) and isinstance(norm, BatchNorm)
    return (fold(layer, norm), Identity()) if foldable else (layer, norm)


def fold(layer: Fused, norm: BatchNorm) -> Fused:
    """`x -> norm(layer(x))` in evaluation."""
    factor, shift = _affine(norm)
    return _like(layer, _host(layer.kernel) * factor, _bias(layer) * factor + shift)


def fold_behind(norm: BatchNorm, layer: Linear) -> Linear:
    """`x -> layer(norm(x))` in evaluation. Not for convolutions that pad: they pad what is normalised."""
    factor, shift = _affine(norm)
    kernel = _host(layer.kernel)
    return _like(layer, factor[:, None] * kernel, _bias(layer) + shift @ kernel)


def scale(layer: Fused, factor: jax.Array | np.ndarray) -> Fused:
    """`x -> factor * layer(x)`, one factor for each output channel."""
    factor = np.asarray(factor, np.float64).reshape(-1)
    return _like(layer, _host(layer.kernel) * factor, _bias(layer) * factor)


def identity(like: Fused, norm: BatchNorm | None = None) -> Conv:
    """`x -> x`, or `norm(x)` in evaluation, as a 1x1 convolution with the channels and groups of `like`."""
    inputs, outputs = like.kernel.shape[2:]
    kernel = np.zeros((1, 1, inputs, outputs))
    kernel[0, 0, np.arange(outputs) % inputs, np.arange(outputs)] = 1
    layer = _like(like, kernel, np.zeros(outputs))
    layer.padding = 0
    return layer if norm is None else fold(layer, norm)


def parallel(*branches: Fused) -> Conv:
    """`x -> sum of branch(x)`: convolutions of odd sizes and one stride that keep the size of the map.

    The smaller kernels are padded with zeros to the size of the largest.
    """
    largest = max(branches, key=lambda branch: branch.kernel.shape[0])
    size = largest.kernel.shape[0]
    kernel, bias = np.zeros(largest.kernel.shape), np.zeros(largest.kernel.shape[-1])
    for branch in branches:
        border = (size - branch.kernel.shape[0]) // 2
        kernel[border : size - border, border : size - border] += _host(branch.kernel)
        bias += _bias(branch)
    return _like(largest, kernel, bias)


def _affine(norm: BatchNorm) -> tuple[np.ndarray, np.ndarray]:
    """`(factor, shift)` with `norm(x) = factor * x + shift` in evaluation."""
    factor = _host(norm.scale) / np.sqrt(_host(norm.var) + norm.epsilon)
    return factor, _host(norm.bias) - factor * _host(norm.mean)


def _host(variable: nnx.Variable) -> np.ndarray:
    return np.asarray(variable[...], np.float64)


def _bias(layer: Conv | Linear) -> np.ndarray:
    return np.zeros(layer.kernel.shape[-1]) if layer.bias is None else _host(layer.bias)


def _like(layer: Fused, kernel: np.ndarray, bias: np.ndarray) -> Fused:
    """A copy of `layer` (its stride, padding and groups) with other weights."""
    copy = nnx.clone(layer)
    copy.kernel = nnx.Param(jnp.asarray(kernel, jnp.float32))
    copy.bias = nnx.Param(jnp.asarray(bias, jnp.float32))
    return copy
