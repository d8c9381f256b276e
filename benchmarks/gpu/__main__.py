"""GPU programs compiled for a named card, with or without having one: python -m benchmarks.gpu [--card=h200]

One Markdown row per program: training steps on one and on eight devices at the recipe's size, inference and feature
extraction of the models, linking and denoising. The figures are read from the program that XLA compiled: memory,
kernels, bytes, arithmetic and its number types, communication, and a roofline, "at best": the sum over kernels of
max(bytes / bandwidth, operations / rate). That is no measurement but a bound: launches, latencies, autotuning and the
network are not in it.

Without `--card` this machine's GPUs run the programs, too, and the measured time stands beside the bound. With it,
nothing runs and no GPU is needed (`pip install -r benchmarks/gpu/requirements.txt`); then JAX cannot try several
kernels for a product, and `--options` can turn off those that do not compile untried.
"""

import fnmatch
import time
from collections.abc import Callable, Iterator

import jax
from absl import app, flags

from benchmarks.gpu import programs
from benchmarks.gpu.card import CARDS, Card, own_card, own_mesh
from benchmarks.gpu.programs import Program
from benchmarks.gpu.report import HEADER, compiled_row, failed_row
from cion_jax.models.registry import reidzoo
from cion_jax.runtime.platform import traced_for

STEPS = ("vit_base", "resnet50_ibn", "convnext_base")
_SWITCHES = {"true": True, "false": False}  # XLA takes no words for them here


def chosen(values: flags.FlagValues, mesh: Callable) -> Iterator[Callable[[], Program]]:
    """The programs that the flags select, each built when it is its turn."""
    names = [name for name in reidzoo() if any(fnmatch.fnmatchcase(name, pattern) for pattern in values.models)]
    if "step" in values.programs:
        for name in values.steps:
            for devices in map(int, values.devices):
                yield lambda name=name, devices=devices: programs.step(name, mesh(devices), images=values.images)
    if "inference" in values.programs:
        for name in names:
            yield lambda name=name: programs.inference(name, mesh(1))
    if "extraction" in values.programs:
        for name in names:
            for precision in ("bfloat16", "float32"):
                yield lambda name=name, precision=precision: programs.extraction(name, mesh(1), precision)
    if "correlation" in values.programs:
        for columns in (256, 800):
            yield lambda columns=columns: programs.linking(mesh(1), columns)
        yield lambda: programs.denoising(mesh(1))


def row(build: Callable[[], Program], card: Card, options: dict[str, str | bool], *, run: bool) -> str:
    """The table's row of one program; of one that does not compile, its name and the error."""
    with traced_for("cuda"):
        program = build()
        lowered = program.function.lower(*program.arguments)
    started = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        return failed_row(program, error)
    return compiled_row(program, compiled, card, time.perf_counter() - started, run=run)


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    if values.card:
        jax.config.update("jax_platforms", "cpu")
        card, mesh = CARDS[values.card], CARDS[values.card].mesh
    elif (card := own_card()) is not None:
        mesh = own_mesh
    else:
        raise app.UsageError("this machine has no GPU; name one to compile for, for example --card=h200")
    options = {name: _SWITCHES.get(value, value) for name, value in (option.split("=", 1) for option in values.options)}
    what = "compiled only, not measured" if values.card else f"run on {len(jax.devices())} of them"
    print(f"NVIDIA {card.name.upper()}, {what}; jax {jax.__version__} {' '.join(values.options)}\n\n{HEADER}")
    for build in chosen(values, mesh):
        print(row(build, card, options, run=not values.card), flush=True)


if __name__ == "__main__":
    flags.DEFINE_enum("card", None, list(CARDS), "Card to compile for; left out: this machine's.")
    flags.DEFINE_list("programs", ["step", "inference", "extraction", "correlation"], "Kinds of programs.")
    flags.DEFINE_list("models", ["*"], "Patterns of the models of inference and extraction.")
    flags.DEFINE_list("steps", list(STEPS), "Models of the training steps.")
    flags.DEFINE_list("devices", ["1", "8"], "Numbers of devices that share a step.")
    flags.DEFINE_integer("images", programs.IMAGES, "Images of a step on each device.", lower_bound=1)
    flags.DEFINE_list("options", [], "Options of XLA's compiler, name=value.")
    app.run(main)
