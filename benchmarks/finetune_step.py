"""The step of a fine-tuning method, for `python -m benchmarks.step --method=NAME`."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.ceiling import machine
from benchmarks.timing import Part, peer_rows
from cion_jax.finetuning.cluster_memory import start_memory
from cion_jax.finetuning.method import Method, TrainingData
from cion_jax.finetuning.methods import CONFIGS, create_method
from cion_jax.finetuning.step import create_state, make_train_step
from cion_jax.models import create_model
from cion_jax.runtime.mesh import make_mesh, replicate, shard_batch

IDENTITIES = 751  # of Market-1501's training set
# Height and width of images: the recipe's, and small ones.
_SIZES = {
    "supervised": ((256, 128), (128, 64)),
    "mgn": ((384, 128), (192, 64)),
    "cluster_contrast": ((256, 128), (128, 64)),
}


def fine_tuning_method(name: str, model: str, batch: int, size: tuple[int, int]) -> Method:
    """The method with its recipe's settings for Market-1501, in which nothing is frozen."""
    config = importlib.import_module(f"configs.finetune.{CONFIGS[name]}").get_config(f"market1501/{model}")
    config[name].update(batch_size=batch, size=size)
    if name == "mgn":
        config.mgn.images_per_identity = batch // 4
        config.mgn.optimizer.update(frozen_epochs=0, extra_frozen_steps=0)
    return create_method(config)


def parts(method: Method, model: str, dtype: Any) -> dict[str, Part]:
    """Augmentation and the whole step on one device."""
    s, rngs = method.settings, nnx.Rngs(0)
    per_identity = _per_identity(method)
    labels = np.repeat(np.arange(IDENTITIES), per_identity)
    data = TrainingData(np.full(len(labels), ""), Path(), labels, None)
    network = method.create_network(create_model(model, dtype=dtype, rngs=rngs), IDENTITIES, rngs)
    memory = method.initial_memory(network, data)
    if method.relabels:  # as after clustering
        features = np.random.default_rng(0).normal(size=(len(labels), network.embed_dim)).astype(np.float32)
        memory = start_memory(features, labels, len(memory.centroids))
    optimizer, mesh = method.optimizer(method.plan(data, 1)), make_mesh(jax.devices()[:1])
    structure, state = create_state(network, optimizer, memory, labels)
    step = make_train_step(structure, optimizer, method, mesh=mesh)
    batch = _batch(s.batch_size, s.size, per_identity)
    keys = jax.random.split(jax.random.key(0), s.batch_size)
    return {
        "augmentation": Part(jax.jit(method.augment), (batch["images"], batch["sizes"], keys)),
        "step": Part(step, (replicate(state, mesh), shard_batch(batch, mesh)), donates=True),
    }


def _per_identity(method: Method) -> int:
    return method.settings.get("images_per_identity") or method.settings.images_per_cluster


def _batch(count: int, size: Sequence[int], per_identity: int) -> dict[str, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)
    labels = np.arange(count, dtype=np.int32) // per_identity
    return {"images": images, "sizes": np.full((count, 2), size, np.int32), "labels": labels}


def report_fine_tuning(
    name: str, model: str, batch: int | None, size: Sequence[str] | None, dtype: Any, repeats: int, torch: bool
) -> None:
    """Prints one table; without `batch` and `size`, they are small on a CPU and the recipe's on a GPU."""
    small = jax.default_backend() == "cpu"
    height, width = (int(x) for x in size or _SIZES[name][small])
    method = fine_tuning_method(name, model, batch or (16 if small else 64), (height, width))
    peer = {}
    if torch:
        from benchmarks.finetune_torch import torch_seconds

        peer = torch_seconds(
            name, model, method.settings.batch_size, (height, width),
            per_identity=_per_identity(method), identities=IDENTITIES, repeats=repeats,
        )  # fmt: skip
    rows, seconds = report(method, model, dtype, repeats)
    rows += peer_rows(peer, seconds)
    what = f"{method.settings.batch_size} images of {height}x{width}, {IDENTITIES} identities"
    print(f"{machine()}; {jnp.dtype(dtype).name}; {what}\n\n| {name}, {model} | |\n| --- | --- |")
    print("\n".join(f"| {row} | {value} |" for row, value in rows))


def report(method: Method, model: str, dtype: Any, repeats: int) -> tuple[list[tuple[str, str]], float]:
    """Rows (what, value) of the table, and the seconds of a step."""
    step = parts(method, model, dtype)
    memory = step["step"].compiled.memory_analysis()
    augmentation, total = (step[name].seconds(repeats) for name in ("augmentation", "step"))
    return [
        ("images/s", f"{method.settings.batch_size / total:.1f}"),
        ("augmentation, ms", f"{1e3 * augmentation:.1f}"),
        ("step, ms", f"{1e3 * total:.1f}"),
        ("state and temporary memory, MiB", f"{memory.alias_size_in_bytes / 2**20:.0f} + "
         f"{memory.temp_size_in_bytes / 2**20:.0f}"),
    ], total  # fmt: skip
