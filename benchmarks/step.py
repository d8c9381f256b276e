"""Times a training step: python -m benchmarks.step --model=resnet50_ibn [--batch=8 --prototypes=4096 ...]

Prints one markdown table: images per second, where the time goes, the arithmetic that the step cannot avoid (3 x the
student on all views, 1 x the teacher on the global ones) as a share of a matrix product's rate in the same run,
memory, and the same step written plainly in PyTorch (`benchmarks/step_torch.py`; needs `pip install torch
transformers`), eager and compiled. `--flops` prints only how much arithmetic the compiled step does beyond its parts.
With `--method=supervised` (or `mgn`, `cluster_contrast`) the step is that of fine-tuning, without its parts.

Sizes are the recipe's on a GPU and small ones elsewhere, unless given.
"""

import functools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from flax import nnx
from PIL import Image

from benchmarks.ceiling import machine, matmul_rate
from benchmarks.finetune_step import report_fine_tuning
from benchmarks.timing import Part, peer_rows
from cion_jax.distillation.augmentation import Augmentation, make_views, sample_keys
from cion_jax.distillation.head import Head
from cion_jax.distillation.loss import Projection, distillation_loss
from cion_jax.distillation.optimizer import make_optimizer
from cion_jax.distillation.step import LossSettings, Network, create_state, make_train_step
from cion_jax.finetuning.methods import METHODS
from cion_jax.models import create_model
from cion_jax.runtime.mesh import make_mesh, replicate, shard_batch
from cion_jax.samples import load_image

IMAGES_PER_IDENTITY = 2


def parts(
    model: str, *, batch: int, prototypes: int, views: Augmentation, dtype: Any, remat: bool = False
) -> dict[str, Part]:
    """The step and what it consists of, on one device."""
    rngs = nnx.Rngs(0)
    backbone = create_model(model, dtype=dtype, rngs=rngs)
    network = Network(backbone, Head(backbone.embed_dim, prototypes, rngs=rngs))
    network.train()
    alone = nnx.split(network, nnx.Param, nnx.BatchStat)[0]  # without the mesh's axis in BatchNorm
    optimizer = make_optimizer(lambda step: 1e-4, lambda step: 0.04)
    mesh = make_mesh(jax.devices()[:1])
    structure, state = create_state(network, optimizer)
    state = replicate(state, mesh)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch, *views.global_size, 3), np.uint8)
    arrays = {"images": images, "sizes": np.full((batch, 2), views.global_size, np.int32)}

    def augment(batch: Any, step: jax.Array, positions: jax.Array) -> Any:
        return make_views(batch["images"], batch["sizes"], sample_keys(0, step, positions), views)

    step = make_train_step(
        structure, optimizer, mesh=mesh, make_views=augment, momentum=lambda step: 0.996,
        images_per_identity=IMAGES_PER_IDENTITY, loss=LossSettings(), remat=remat,
    )  # fmt: skip
    crops = [x for x in jax.jit(augment)(arrays, 0, jnp.arange(batch)) if x is not None]

    def embed(params: Any, stats: Any, *crops: jax.Array) -> jax.Array:
        backbone = nnx.merge(alone, params, stats, copy=True).backbone
        return jnp.concatenate([backbone(x.reshape(-1, *x.shape[2:])) for x in crops])

    def backbones(params: Any, teacher: Any, stats: Any, *crops: jax.Array) -> Any:
        """The student's gradients of something cheap, and the teacher's embeddings."""
        gradients = jax.grad(lambda p: embed(p, stats, *crops).astype(jnp.float32).sum())(params)
        return gradients["backbone"], embed(teacher, stats, crops[0])

    def heads(params: Any, teacher: Any, stats: Any, center: jax.Array, embeddings: jax.Array) -> Any:
        def project(params: Any, x: jax.Array) -> Projection:
            vectors, weights = nnx.merge(alone, params, stats, copy=True).head(x)
            return Projection(vectors.reshape(-1, batch, vectors.shape[-1]), weights)

        def loss_of(params: Any, x: jax.Array) -> Any:
            of_teacher = project(teacher, jax.lax.stop_gradient(x[: 2 * batch]))
            return distillation_loss(project(params, x), of_teacher, center, images_per_identity=IMAGES_PER_IDENTITY)

        (_, aux), (gradients, to_backbone) = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)(
            params, embeddings
        )
        return gradients["head"], to_backbone, aux

    def update(state: Any, gradients: Any) -> tuple:
        updates, optimizer_state = optimizer.update(gradients, state[2], state[0])
        student = optax.apply_updates(state[0], updates)
        teacher = jax.tree.map(lambda t, s: 0.996 * t + 0.004 * s, state[1], student)
        return ((student, teacher, optimizer_state),)

    nets = state.student, state.teacher, state.student_stats
    student = Part(jax.jit(embed), (state.student, state.student_stats, *crops))
    copy = jax.tree.map(jnp.copy, (state.student, state.teacher, state.optimizer))
    return {
        "augmentation": Part(jax.jit(augment), (arrays, 0, jnp.arange(batch))),
        "student forward": student,
        "teacher forward": Part(jax.jit(embed), (state.teacher, state.student_stats, crops[0])),
        "forward and backward": Part(jax.jit(backbones), (*nets, *crops)),
        "head and loss": Part(jax.jit(heads), (*nets, state.center, student.compiled(*student.arguments))),
        "update": Part(jax.jit(update, donate_argnums=0), (copy, jax.tree.map(jnp.copy, state.student)), True),
        "step": Part(step, (state, shard_batch(arrays, mesh)), True),
    }


def flops(part: Part) -> float:
    """Of the compiled program. XLA counts the body of a loop once: let all prototypes fit one block."""
    return part.compiled.cost_analysis()["flops"]


def excess(step: dict[str, Part]) -> float:
    """Arithmetic of the compiled step over that of its parts: 3 x student + teacher + head and loss + augmentation."""
    weights = {"student forward": 3, "teacher forward": 1, "head and loss": 1, "augmentation": 1}
    return flops(step["step"]) / sum(weight * flops(step[name]) for name, weight in weights.items())


def input_seconds(batch: int, size: tuple[int, int]) -> float:
    """Reading and decoding the JPEG files of a batch on one thread, and moving them to the device."""
    mesh, generator = make_mesh(jax.devices()[:1]), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.jpg" for index in range(batch)]
        for path in paths:
            coarse = Image.fromarray(generator.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8))
            coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(path, quality=90)
        read = lambda: shard_batch(np.stack([load_image(path) for path in paths]), mesh)  # noqa: E731
        return min(_seconds(read) for _ in range(3))


def _seconds(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - started


def report(step: dict[str, Part], batch: int, size: tuple[int, int], dtype: Any, repeats: int) -> tuple[list, float]:
    """Rows (what, value) of the table, and the seconds of a step."""
    names = ("augmentation", "forward and backward", "head and loss", "update")
    memory = step["step"].compiled.memory_analysis()
    floor = 3 * flops(step["student forward"]) + flops(step["teacher forward"])
    split = {name: step[name].seconds(repeats) for name in names}
    total, rate = step["step"].seconds(repeats), matmul_rate(dtype)
    milliseconds = [("input", input_seconds(batch, size)), *split.items(), ("step", total)]
    return [
        ("images/s", f"{batch / total:.1f}"),
        *((f"{name}, ms", f"{1e3 * value:.1f}") for name, value in milliseconds),
        ("step over its forward and backward", f"{total / split['forward and backward']:.2f}"),
        ("unavoidable arithmetic, GFLOP", f"{floor / 1e9:.1f}"),
        ("rate of it over a matrix product's", f"{floor / total / rate:.2f} of {rate / 1e9:,.0f} GFLOP/s"),
        ("state and temporary memory, MiB", f"{memory.alias_size_in_bytes / 2**20:.0f} + "
         f"{memory.temp_size_in_bytes / 2**20:.0f}"),
    ], total  # fmt: skip


def main(argv: list[str]) -> None:
    del argv
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch takes its turn on the same GPU
    values, small = flags.FLAGS, jax.default_backend() == "cpu"
    size = tuple(int(x) for x in values.size or (("128", "64") if small else ("256", "128")))
    batch = values.batch or (4 if small else 256)
    prototypes = values.prototypes or (4096 if small else 65536)
    views = Augmentation(
        global_size=size, local_size=(size[0] // 2, size[1] // 2), local_views=values.local_views
    )  # fmt: skip
    dtype = jnp.float32 if small else jnp.bfloat16
    if values.method:
        report_fine_tuning(values.method, values.model, values.batch, values.size, dtype, values.repeats, values.torch)
        return
    make_parts = functools.partial(
        parts, values.model, batch=batch, prototypes=prototypes, views=views, dtype=dtype, remat=values.remat
    )
    if values.flops:
        print(f"{values.model}: the compiled step does {excess(make_parts()):.3f} x the arithmetic of its parts")
        return
    peer = {}
    if values.torch:
        from benchmarks.step_torch import torch_seconds

        peer = torch_seconds(values.model, batch, prototypes, views, values.repeats)
    rows, seconds = report(make_parts(), batch, size, dtype, values.repeats)
    rows += peer_rows(peer, seconds)
    what = f"{batch} images, 2 + {views.local_views} views, {size[0]}x{size[1]}, {prototypes:,} prototypes"
    print(f"{machine()}; {jnp.dtype(dtype).name}; {what}\n\n| {values.model} | |\n| --- | --- |")
    print("\n".join(f"| {name} | {value} |" for name, value in rows))


if __name__ == "__main__":
    flags.DEFINE_string("model", "resnet50_ibn", "A model of the registry.")
    flags.DEFINE_enum("method", None, list(METHODS), "Fine-tune by this method instead of pre-training.")
    flags.DEFINE_integer("batch", None, "Images of a step.")
    flags.DEFINE_integer("prototypes", None, "Prototypes of the head.")
    flags.DEFINE_integer("local_views", 8, "Local views of an image.")
    flags.DEFINE_list("size", None, "Height and width of global views; local views are half of it.")
    flags.DEFINE_integer("repeats", 3, "Runs, of which the shortest counts.")
    flags.DEFINE_bool("remat", False, "As pretrain.remat.")
    flags.DEFINE_bool("flops", False, "Only compare the arithmetic of the step and its parts.")
    flags.DEFINE_bool("torch", True, "Also time the step written in PyTorch.")
    app.run(main)
