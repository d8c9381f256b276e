"""Converts and checks weights: python -m cion_jax.convert --model=M --from=SRC [--to=DST]

SRC is a PyTorch file (ReIDZoo's, a whole training checkpoint of the released code, or a state dict), a safetensors
file, or the `checkpoints` folder of a run of `cion_jax.pretrain`. It must fit the model exactly: keys that are missing
or unexpected and tensors that do not fit are listed, and nothing is written. Without `--to`, SRC is only checked.

The `.pth` of a fine-tuned network is recognised; DST is then written as its own code has it, neck and classifier
included, or as a program with the embedding that is compared at test time.

DST is a `.pth` as ReIDZoo has them, or as `--for` needs it, a `.safetensors`, or a `.stablehlo`: the fused model as a
program for any batch, which `jax.export.deserialize` reads without this package. Its card is written beside it.

With `--init=SRC` instead of `--from`, SRC holds ImageNet weights in the naming of torchvision, timm or IBN-Net; what
has a counterpart in the model is taken, the rest keeps its initial values; both are reported.
"""

import os

from absl import flags

from cion_jax.conversion.finetuned import read_finetuned
from cion_jax.conversion.loaders import LOADERS
from cion_jax.conversion.sections import NETWORKS
from cion_jax.conversion.transfer import Target, read_weight_file, transfer, transfer_imagenet
from cion_jax.conversion.weights import Weights
from cion_jax.distillation.run_weights import read_run
from cion_jax.finetuning.transfer import transfer_finetuned
from cion_jax.runtime.commands import define_resampling_flag, run


def convert(
    model_name: str,
    source: str | os.PathLike,
    destination: str | os.PathLike | None,
    *,
    which: str = "teacher",
    section: str | None = None,
    loader: str = "reidzoo",
    with_head: bool = False,
    resample_positions: bool | None = None,
) -> str:
    """Converts a weight file, of a backbone or a fine-tuned network, or the latest checkpoint of a run.

    Returns a report.

    Raises:
        ValueError: as `cion_jax.conversion.transfer.transfer`.
    """
    target = None if destination is None else Target(destination, loader, with_head)
    if target is not None:
        target.check(model_name)  # before the source is read
    from_run = os.path.isdir(source)
    if not from_run and read_finetuned(source, section=section) is not None:
        positions = {"resample_positions": resample_positions}
        return transfer_finetuned(model_name, source, target, section=section, **positions)

    def read() -> Weights:
        if not from_run:
            weights = read_weight_file(source, which, section, with_head)
        elif section is None:
            weights = read_run(source, which=which, with_head=with_head)
        else:
            raise ValueError(f"--section={section}: {source} is the folder of a run; --which chooses its network")
        if with_head and not weights.head:
            raise ValueError(f"{source} ({weights.where}) has no projection head; leave --head out")
        return weights

    return transfer(model_name, source, read, target)


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
        target = None if values.to is None else Target(values.to, loader)
        print(transfer_imagenet(values.model, values.init, target, section=values.section))
        return
    report = convert(
        values.model,
        source,
        values.to,
        which=values.which,
        section=values.section,
        loader=loader,
        with_head=values.head,
        resample_positions=values.resample_positions,
    )
    print(report)


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "Name of the model, as list_models() gives it.", required=True)
    flags.DEFINE_string("from", None, "Weights to read: .pth, .safetensors, or a run's checkpoints folder.")
    flags.DEFINE_string("init", None, "ImageNet weights to start from, as torchvision, timm or IBN-Net name them.")
    flags.DEFINE_string("to", None, "The .pth, .safetensors or .stablehlo to write; without it, only checks.")
    flags.DEFINE_enum("which", "teacher", NETWORKS, "The network to take, where the source has both.")
    flags.DEFINE_string(
        "section", None, "The section to take, where a file has several: state_dict_ema, model.net, ..."
    )
    flags.DEFINE_enum("for", "reidzoo", list(LOADERS), "The code that is to read the .pth.")
    flags.DEFINE_bool("head", False, "Write the projection head as well.")
    define_resampling_flag()
    run(main)
