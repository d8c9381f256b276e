"""Models as programs: StableHLO with the weights inside, for a batch of any size, on CPU and NVIDIA GPUs.

    program = jax.export.deserialize(bytearray(Path("model.stablehlo").read_bytes()))
    embeddings = program.call(images)      # [b, h, w, 3] float32, normalised as the card says -> [b, embed_dim]

Nothing of this package is needed to run one.
"""

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from cion_jax.conversion.card import card_path, write_card
from cion_jax.models.fuse import fuse
from cion_jax.runtime.files import atomic_path
from cion_jax.runtime.platform import traced_for

SUFFIX = ".stablehlo"
PLATFORMS = ("cpu", "cuda")


def is_program(path: str | os.PathLike) -> bool:
    return os.fspath(path).lower().endswith(SUFFIX)


def export_program(model: nnx.Module, size: tuple[int, int]) -> jax.export.Exported:
    """`model`, fused and in evaluation, as a program from images `[b, *size, 3]` to embeddings, both float32.

    It holds two forms of the model, each with the convolutions that are fast on its platform, and one copy of the
    weights. Products are at full float32 precision (no TF32 on GPUs).
    """
    graph, state = nnx.split(fuse(model))

    def embed_on(platform: str):
        def embed(state: nnx.State, images: jax.Array) -> jax.Array:
            with traced_for(platform), jax.default_matmul_precision("highest"):
                return nnx.merge(graph, state)(images).astype(jnp.float32)

        return embed

    def embed(images: jax.Array) -> jax.Array:
        return lax.platform_dependent(state, images, **{platform: embed_on(platform) for platform in PLATFORMS})

    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *size, 3), jnp.float32)
    return jax.export.export(jax.jit(embed), platforms=PLATFORMS)(images)


def write_program(model: nnx.Module, path: str | os.PathLike, *, about: Mapping[str, Any]) -> None:
    """Writes `export_program` of `model` and, beside it, its card, each atomically.

    Args:
        model: the backbone.
        path: what to write.
        about: fields of the card; `input_size` (height, width), if it is there, is that of the program.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise ValueError(f"{path}: JAX writes programs with the package flatbuffers; pip install flatbuffers")
    height, width = about.get("input_size") or (256, 128)
    program = bytes(export_program(model, (height, width)).serialize())
    card_path(path).unlink(missing_ok=True)  # a card of another program must not outlive it
    with atomic_path(path) as temporary:
        temporary.write_bytes(program)
    form = {
        "format": "jax.export",
        "platforms": list(PLATFORMS),
        "input": ["b", height, width, 3],
        "input_dtype": "float32",
    }
    write_card(path, model, {**about, **form})
