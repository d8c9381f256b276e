"""Conversion of weights from one file format to another, with everything checked before a file is written."""

import dataclasses
import os
from collections.abc import Callable

from flax import nnx

from cion_jax.conversion.candidates import misfit_hint
from cion_jax.conversion.card import training_of
from cion_jax.conversion.files.safetensors_file import SUFFIX as SAFETENSORS
from cion_jax.conversion.imagenet import initialise
from cion_jax.conversion.loaders import loader_defects, loader_prefix
from cion_jax.conversion.program import SUFFIX as PROGRAM
from cion_jax.conversion.program import is_program, write_program
from cion_jax.conversion.state_dict import compare, load_state_dict
from cion_jax.conversion.weights import Weights, read_file, reidzoo_prefix, write_weights
from cion_jax.models import create_model


@dataclasses.dataclass(frozen=True)
class Target:
    """The file to write.

    Attributes:
        path: `.pth`, `.safetensors` or `.stablehlo`.
        loader: the code that is to read a `.pth`, of `LOADERS`.
        with_head: the projection head too.
    """

    path: str | os.PathLike
    loader: str = "reidzoo"
    with_head: bool = False

    def check(self, model_name: str) -> None:
        """Raises ValueError for an invalid target, before anything is read."""
        name = os.fspath(self.path).lower()
        if not name.endswith((".pth", SAFETENSORS, PROGRAM)):
            raise ValueError(
                f"--to={self.path}: models are written as .pth, {SAFETENSORS} or {PROGRAM}; give it such an ending"
            )
        if self.loader != "reidzoo" and not name.endswith(".pth"):
            raise ValueError(f"--for={self.loader}: that code reads .pth files; give --to such an ending")
        if self.with_head and is_program(self.path):
            raise ValueError(f"--head: a {PROGRAM} computes embeddings and has no projection head; leave it out")
        loader_prefix(self.loader, model_name, "")


def transfer(model_name: str, source: str | os.PathLike, read: Callable[[], Weights], target: Target | None) -> str:
    """Reads weights into the model, strictly, and writes them to `target`.

    Args:
        model_name: one of `list_models()`.
        source: the path that messages name.
        read: reads the weights; called once the target has been checked.
        target: the file to write; None only checks that the weights fit.

    Returns:
        A report of what was compared and written.

    Raises:
        ValueError: unknown model, unreadable weights or weights of another model, or a target that cannot be written.
    """
    model = _create_checked(model_name, target)
    weights = read()
    comparison = compare(model, weights.backbone)
    report = f"{source} ({weights.where}), beside {model_name}: {comparison}"
    if not comparison.exact:
        legend = "(- only the model has it, + only the file has it, ! they differ)"
        raise ValueError(f"{report}\n{legend}\n{misfit_hint(weights.backbone)}")
    if target is None:
        return report
    load_state_dict(model, weights.backbone)
    return f"{report}\n{_write(model, model_name, weights, target)}"


def transfer_imagenet(
    model_name: str, source: str | os.PathLike, target: Target | None, *, section: str | None = None
) -> str:
    """Initialises the model from ImageNet weights and writes it to `target`, if any.

    Returns:
        A report of the tensors taken, resized and left out, and of the file written.

    Raises:
        ValueError: as `transfer` and `initialise`.
    """
    model = _create_checked(model_name, target)
    report = f"{source}, into {model_name}: {initialise(model, source, section=section)}"
    if target is None:
        return report
    return f"{report}\n{_write(model, model_name, Weights({}, {}, f'initialised from {source}'), target)}"


def _create_checked(model_name: str, target: Target | None) -> nnx.Module:
    """The model, once it is known to exist and the target to be valid for it."""
    model = create_model(model_name)
    if target is not None:
        target.check(model_name)
    return model


def read_weight_file(source: str | os.PathLike, which: str, section: str | None, with_head: bool) -> Weights:
    """The weights of a file, with what its card says of their training."""
    weights = read_file(source, which=which, section=section, with_head=with_head)
    return dataclasses.replace(weights, about=training_of(source))


def _write(model: nnx.Module, model_name: str, weights: Weights, target: Target) -> str:
    about = {"weights": weights.where, **weights.about, "model": model_name}
    if is_program(target.path):
        write_program(model, target.path, about=about)
    else:
        prefix = None  # as the released training has it
        if target.loader != "reidzoo":
            prefix = loader_prefix(target.loader, model_name, reidzoo_prefix(model))
        write_weights(model, target.path, prefix=prefix, head=weights.head, about=about)
    notes = [f"note: {defect}" for defect in loader_defects(target.loader, model_name)]
    return "\n".join([f"wrote {target.path} and its card, {target.path}.json", *notes])
