"""Conversion of fine-tuned networks: to another file format, or to a program for deployment."""

import os
from typing import Any

from cion_jax.conversion.finetuned import write_finetuned
from cion_jax.conversion.program import is_program, write_program
from cion_jax.conversion.state_dict import signature
from cion_jax.conversion.transfer import Target
from cion_jax.finetuning.weights import load_network


def transfer_finetuned(
    model_name: str,
    source: str | os.PathLike,
    target: Target | None,
    *,
    section: str | None = None,
    resample_positions: bool | None = None,
) -> str:
    """Converts the file of a fine-tuned network, checked against the network it is of.

    Args:
        model_name: the backbone's model.
        source: `.pth` or `.safetensors` of a fine-tuned network.
        target: `.pth` and `.safetensors` get the state dict in its own code's names, `.stablehlo` a program from images
            to the test embedding; None only checks.
        section, resample_positions: as in `load_network`.

    Returns:
        A report of what was read and written.

    Raises:
        ValueError: weights that do not fit, or a target that no fine-tuned network can be written to.
    """
    if target is not None and (target.loader != "reidzoo" or target.with_head):
        raise ValueError(
            f"{source} is a fine-tuned network, which is written as its own code has it; leave --for and --head out"
        )
    loaded = load_network(model_name, source, section=section, resample_positions=resample_positions)
    report = (
        f"{source} ({loaded.about['weights_taken']}), beside {model_name}: {len(signature(loaded.network))} matched"
    )
    if target is None:
        return report
    about: dict[str, Any] = {
        **loaded.card,
        "model": model_name,
        "input_size": list(loaded.preprocessing.size),
        "mean": list(loaded.preprocessing.mean),
        "std": list(loaded.preprocessing.std),
    }
    write = write_program if is_program(target.path) else write_finetuned
    write(loaded.network, target.path, about=about)
    return f"{report}\nwrote {target.path} and its card, {target.path}.json"
