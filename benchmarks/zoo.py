"""Times the inference of ReIDZoo's models: python -m benchmarks.zoo [--models=resnet*,vit_base] [--batch=8]

One Markdown row per model, on the machine at hand, 256x128, float32 on CPU and bfloat16 on a GPU, compiled:

- multiply-adds of one image, half of the operations that XLA counts;
- images a second, and the share that is of the fastest matrix product of the same number type in the same run;
- images a second of the fused model, of the families that are made to be fused;
- images a second of the same model in PyTorch from `transformers`, where it has one, and ours over that. The two take
  turns. `pip install transformers torch` for these columns; without, they are empty.

Times are the shortest of several runs.
"""

import dataclasses
import fnmatch
import importlib.util
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import nnx

from benchmarks import pytorch_zoo
from benchmarks.ceiling import machine, matmul_rate
from cion_jax.models import create_model
from cion_jax.models.cost import floating_point_operations
from cion_jax.models.fuse import fuse
from cion_jax.models.registry import reidzoo
from cion_jax.runtime.platform import inference_options

REPEATS = 5
FUSED = ("repvit_*", "fastvit_*", "ghostnet_*")
PACKAGES = ("transformers", "torch")


@dataclasses.dataclass(frozen=True)
class Speed:
    """Of one model.

    Attributes:
        name: of the model.
        operations: floating-point operations of one image.
        ours, fused, pytorch: images a second; None where there is no such model.
        share: of the rate of the fastest matrix product, by our images a second.
    """

    name: str
    operations: float
    ours: float
    share: float
    fused: float | None
    pytorch: float | None

    def row(self) -> str:
        ratio = "" if self.pytorch is None else f"{self.ours / self.pytorch:.2f}"
        return (
            f"| `{self.name}` | {self.operations / 2e9:.2f} | {self.ours:.1f} | {100 * self.share:.0f} % "
            f"| {_rate(self.fused)} | {_rate(self.pytorch)} | {ratio} |"
        )


HEADER = """\
| model | G multiply-adds | images/s | of matrix product | fused, images/s | transformers, images/s | ours / theirs |
| --- | --- | --- | --- | --- | --- | --- |"""


def _rate(images_per_second: float | None) -> str:
    return "" if images_per_second is None else f"{images_per_second:.1f}"


def measure(name: str, batch: int, dtype: Any, matrix_rate: float, with_pytorch: bool) -> Speed:
    """Times one model, its fused form and its PyTorch twin in turns."""
    model = create_model(name, dtype=dtype)
    ours, operations = _embedder(model, batch)
    runs = {"ours": ours}
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in FUSED):
        runs["fused"], _ = _embedder(fuse(model), batch)
    if with_pytorch and (pytorch := pytorch_zoo.embedder(name, batch)):
        runs["pytorch"] = pytorch
    rates = {run: batch / seconds for run, seconds in shortest(runs).items()}
    return Speed(
        name=name,
        operations=operations / batch,
        ours=rates["ours"],
        share=rates["ours"] * operations / batch / matrix_rate,
        fused=rates.get("fused"),
        pytorch=rates.get("pytorch"),
    )


def shortest(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The fewest seconds of each, after one call that warms up; they take turns, so that all see the same machine."""
    for run in runs.values():
        run()
    seconds = dict.fromkeys(runs, float("inf"))
    for _ in range(REPEATS):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds


def _embedder(model: nnx.Module, batch: int) -> tuple[Callable[[], Any], float]:
    """A function that embeds one fixed batch and waits for the result, and the operations that takes."""
    model.eval()
    graph, state = nnx.split(model)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(batch, *pytorch_zoo.SIZE, 3)), jnp.float32)
    lowered = jax.jit(lambda state, images: nnx.merge(graph, state)(images)).lower(state, images)
    compiled = lowered.compile(compiler_options=inference_options())
    return lambda: jax.block_until_ready(compiled(state, images)), floating_point_operations(lowered)


def main(argv: list[str]) -> None:
    del argv
    values, on_cpu = flags.FLAGS, jax.default_backend() == "cpu"
    names = [n for n in reidzoo() if any(fnmatch.fnmatchcase(n, pattern) for pattern in values.models)]
    if not names:
        raise app.UsageError(f"--models={','.join(values.models)} matches none of ReIDZoo's models")
    batch, dtype = values.batch or (8 if on_cpu else 128), jnp.float32 if on_cpu else jnp.bfloat16
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        print(f"no PyTorch columns without {' and '.join(missing)}: pip install {' '.join(PACKAGES)}\n")
    others = ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES if package not in missing)
    matrix_rate = matmul_rate(dtype)
    print(f"{machine()}; {others}; batch {batch}, {jnp.dtype(dtype).name}, ", end="")
    print(f"matrix product {matrix_rate / 1e9:.0f} GFLOP/s\n\n{HEADER}")
    for name in names:
        print(measure(name, batch, dtype, matrix_rate, with_pytorch=not missing).row(), flush=True)


if __name__ == "__main__":
    flags.DEFINE_list("models", ["*"], "Patterns of names.")
    flags.DEFINE_integer("batch", None, "Images at a time; left out: 8 on CPU, 128 on a GPU.", lower_bound=1)
    app.run(main)
