"""Weights from the checkpoints of pre-training runs of this package."""

import json
import os
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict

from cion_jax.conversion.sections import NETWORKS
from cion_jax.conversion.state_dict import state_dict
from cion_jax.conversion.weights import Weights
from cion_jax.distillation.head import Head
from cion_jax.models import create_model
from cion_jax.models.definition_order import record_definition_order
from cion_jax.runtime.checkpoints import read_checkpoint


def read_run(folder: str | os.PathLike, *, which: str = "teacher", with_head: bool = False) -> Weights:
    """The teacher or the student of the latest checkpoint in the `checkpoints` folder of a run.

    Raises:
        ValueError: no complete checkpoint in the folder, or parameters that do not match the model as this version of
            the package defines it.
    """
    if which not in NETWORKS:
        raise ValueError(f"--which={which} is unknown; choose teacher or student")
    tree, meta = read_checkpoint(folder)
    config = json.loads(meta["config"])
    parts = tree[which], tree[f"{which}_stats"]
    backbone = nnx.eval_shape(lambda: create_model(meta["model"]))
    _fill(backbone, [part.get("backbone", {}) for part in parts], folder)
    head = {}
    if with_head:
        projection = nnx.eval_shape(lambda: _create_head(backbone.embed_dim, config["pretrain"]["head"]))
        _fill(projection, [part.get("head", {}) for part in parts], folder)
        head = head_state_dict(projection)
    return Weights(
        backbone=state_dict(backbone),
        head=head,
        where=f"{which} of step {int(tree['step'])} of a {meta['model']}",
        about={"config": config, "data": meta["data"], "input_size": list(config["pretrain"]["views"]["global_size"])},
    )


def head_state_dict(head: Head) -> dict[str, np.ndarray]:
    """The head's tensors by their keys in the released training code.

    PyTorch's weight norm has a gain `weight_g` for every `weight_v`; here it is fixed to one.
    """
    arrays = state_dict(head)
    weight_v = arrays.pop("last_layer.weight_v")
    weight_g = np.ones((len(weight_v), 1), weight_v.dtype)
    return arrays | {"last_layer.weight_g": weight_g, "last_layer.weight_v": weight_v}


def _create_head(embed_dim: int, settings: Mapping[str, Any]) -> Head:
    head = Head(embed_dim, rngs=nnx.Rngs(0), **settings)
    record_definition_order(head)
    return head


def _fill(module: nnx.Module, parts: list[Mapping[str, Any]], folder: str | os.PathLike) -> None:
    """Sets every variable of a module from nested dicts of arrays with the module's own names."""
    arrays: dict[tuple, np.ndarray] = {}
    for part in parts:
        arrays |= flatten_dict(part)
    variables = {
        tuple(map(str, path)): value for path, value in nnx.iter_graph(module) if isinstance(value, nnx.Variable)
    }
    if {path: value.shape for path, value in variables.items()} != {
        path: value.shape for path, value in arrays.items()
    }:
        raise ValueError(f"{folder}: its parameters are not those of a {type(module).__name__} of this version")
    for path, variable in variables.items():
        variable.set_value(jnp.asarray(arrays[path]))
