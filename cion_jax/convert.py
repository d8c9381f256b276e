"""Converts and checks weights: python -m cion_jax.convert --model=M --from=SRC [--to=DST]

SRC is a PyTorch file (ReIDZoo's, a whole training checkpoint of the released code, or a state dict) or the
`checkpoints` folder of a run of `cion_jax.pretrain` (the teacher of its latest checkpoint is taken); DST is
written as ReIDZoo's files are. SRC must fit the model exactly: what is missing, unexpected or unfit is
listed, and nothing is written. Without `--to`, SRC is only checked.
"""

import os

import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx
from flax.traverse_util import flatten_dict

from cion_jax.conversion import (
    compare,
    load_state_dict,
    read_weights,
    reidzoo_prefix,
    state_dict,
    write_weights,
)
from cion_jax.models import create_model
from cion_jax.runtime.checkpoints import read_checkpoint
from cion_jax.runtime.commands import run


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    print(convert(values.model, getattr(values, "from"), values.to))


def convert(model_name: str, source: str | os.PathLike, destination: str | os.PathLike | None) -> str:
    """Reads `source` into the model and writes `destination`, if any; returns what was done, in words.

    Raises:
        ValueError: unknown model, `source` unreadable or not exactly this model's, `destination` not a
        `.pth`.
    """
    if destination is not None and not os.fspath(destination).endswith(".pth"):
        raise ValueError(f"--to={destination}: weights are written as .pth; give it that ending")
    model = create_model(model_name)
    arrays, where = read_source(model, source)
    comparison = compare(model, arrays)
    report = f"{source} ({where}), beside {model_name}: {comparison}"
    if not comparison.exact:
        raise ValueError(f"{report}\n(- only the model has it, + only the file has it, ! they differ)")
    if destination is None:
        return report
    load_state_dict(model, arrays)
    write_weights(model, destination)
    return f"{report}\nwrote {destination}, keys under {reidzoo_prefix(model)!r} in 'teacher'"


def read_source(model: nnx.Module, path: str | os.PathLike) -> tuple[dict[str, np.ndarray], str]:
    """The state dict in `path`, and which part of it was taken; `model` says how a checkpoint folder is read."""
    if not os.path.isdir(path):
        return read_weights(path)
    tree, meta = read_checkpoint(path)
    arrays = flatten_dict(tree["teacher"]["backbone"]) | flatten_dict(tree["teacher_stats"]["backbone"])
    where = f"teacher of step {int(tree['step'])} of a {meta['model']}"
    variables = {
        tuple(map(str, place)): value for place, value in nnx.iter_graph(model) if isinstance(value, nnx.Variable)
    }
    if set(variables) != set(arrays):
        raise ValueError(f"{path} ({where}) does not hold the parameters of this model; give --model={meta['model']}")
    for place, variable in variables.items():
        variable.set_value(jnp.asarray(arrays[place]))
    return state_dict(model), where


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "Name of the model, as list_models() gives it.", required=True)
    flags.DEFINE_string("from", None, "Weights to read.", required=True)
    flags.DEFINE_string("to", None, "The .pth file to write; without it, the weights are only checked.")
    run(main)
