"""Converts and checks weights: python -m cion_jax.convert --model=M --from=SRC [--to=DST]

SRC is a PyTorch file (ReIDZoo's, a whole training checkpoint of the released code, or a state dict), a safetensors
file, or the `checkpoints` folder of a run of `cion_jax.pretrain`. It must fit the model exactly: what is missing,
unexpected or unfit is listed, and nothing is written. Without `--to`, SRC is only checked.

DST is a `.pth` as ReIDZoo has them, or as `--for` needs it, a `.safetensors`, or a `.stablehlo`: the fused model as a
program for any batch, which `jax.export.deserialize` reads without this package. Its card is written beside it.

With `--init=SRC` instead of `--from`, SRC holds ImageNet weights in the naming of torchvision, timm or IBN-Net; what
has a counterpart in the model is taken, the rest keeps its initial values, and both are told.
"""

import dataclasses
import os

from absl import flags
from flax import nnx

from cion_jax.conversion import compare, load_state_dict, reidzoo_prefix, write_weights
from cion_jax.conversion.candidates import misfit_hint
from cion_jax.conversion.card import training_of
from cion_jax.conversion.files.safetensors_file import SUFFIX as SAFETENSORS
from cion_jax.conversion.imagenet import initialise
from cion_jax.conversion.loaders import LOADERS, loader_defects, loader_prefix
from cion_jax.conversion.program import SUFFIX as PROGRAM
from cion_jax.conversion.program import is_program, write_program
from cion_jax.conversion.weights import NETWORKS, Weights, read_file
from cion_jax.distillation.run_weights import read_run
from cion_jax.models import create_model
from cion_jax.runtime.commands import run


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
        """Raises what is wrong with the target before anything is read."""
        if not os.fspath(self.path).endswith((".pth", SAFETENSORS, PROGRAM)):
            raise ValueError(
                f"--to={self.path}: models are written as .pth, {SAFETENSORS} or {PROGRAM}; give it such an ending"
            )
        if self.loader != "reidzoo" and not os.fspath(self.path).endswith(".pth"):
            raise ValueError(f"--for={self.loader}: that code reads .pth files; give --to such an ending")
        if self.with_head and is_program(self.path):
            raise ValueError(f"--head: a {PROGRAM} computes embeddings and has no projection head; leave it out")
        loader_prefix(self.loader, model_name, "")


def convert(
    model_name: str,
    source: str | os.PathLike,
    destination: str | os.PathLike | None,
    *,
    which: str = "teacher",
    loader: str = "reidzoo",
    with_head: bool = False,
) -> str:
    """Reads `source` into the model and writes `destination`, if any; returns what was done, in words.

    Raises:
        ValueError: unknown model, `source` unreadable or not exactly this model's, or a destination that can't be
            written in that way.
    """
    target = None if destination is None else Target(destination, loader, with_head)
    model = _prepared(model_name, target)
    weights = _read(source, which, with_head)
    comparison = compare(model, weights.backbone)
    report = f"{source} ({weights.where}), beside {model_name}: {comparison}"
    if not comparison.exact:
        legend = "(- only the model has it, + only the file has it, ! they differ)"
        raise ValueError(f"{report}\n{legend}\n{misfit_hint(weights.backbone)}")
    if target is None:
        return report
    load_state_dict(model, weights.backbone)
    return f"{report}\n{_write(model, model_name, weights, target)}"


def convert_imagenet(
    model_name: str, source: str | os.PathLike, destination: str | os.PathLike | None, *, loader: str = "reidzoo"
) -> str:
    """Initialises the model from ImageNet weights and writes `destination`, if any; returns what was done, in words.

    Raises:
        ValueError: as `convert`, and as `initialise`.
    """
    target = None if destination is None else Target(destination, loader)
    model = _prepared(model_name, target)
    report = f"{source}, into {model_name}: {initialise(model, source)}"
    if target is None:
        return report
    return f"{report}\n{_write(model, model_name, Weights({}, {}, f'initialised from {source}'), target)}"


def _prepared(model_name: str, target: Target | None) -> nnx.Module:
    model = create_model(model_name)
    if target is not None:
        target.check(model_name)
    return model


def _read(source: str | os.PathLike, which: str, with_head: bool) -> Weights:
    read = read_run if os.path.isdir(source) else read_file
    weights = read(source, which=which, with_head=with_head)
    if with_head and not weights.head:
        raise ValueError(f"{source} ({weights.where}) has no projection head; leave --head out")
    if not os.path.isdir(source):
        weights = dataclasses.replace(weights, about=training_of(source))
    return weights


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


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    source = getattr(values, "from")
    if (source is None) == (values.init is None):
        raise ValueError("give either --from=WEIGHTS, which must fit exactly, or --init=IMAGENET_WEIGHTS")
    loader = getattr(values, "for")
    if values.init is not None:
        if values.head:
            raise ValueError("--head: ImageNet weights have no projection head; leave it out")
        print(convert_imagenet(values.model, values.init, values.to, loader=loader))
        return
    print(convert(values.model, source, values.to, which=values.which, loader=loader, with_head=values.head))


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "Name of the model, as list_models() gives it.", required=True)
    flags.DEFINE_string("from", None, "Weights to read: .pth, .safetensors, or a run's checkpoints folder.")
    flags.DEFINE_string("init", None, "ImageNet weights to start from, as torchvision, timm or IBN-Net name them.")
    flags.DEFINE_string("to", None, "The .pth, .safetensors or .stablehlo to write; without it, only checks.")
    flags.DEFINE_enum("which", "teacher", NETWORKS, "The network to take, where the source has both.")
    flags.DEFINE_enum("for", "reidzoo", list(LOADERS), "The code that is to read the .pth.")
    flags.DEFINE_bool("head", False, "Write the projection head as well.")
    run(main)
