"""The programs of cion_jax that run on GPUs, with the shapes of their arguments: nothing is computed here.

Sizes are the recipe's: 256x128 images, 2 + 8 views, 65,536 prototypes, bfloat16, a batch of 960 on 8 devices.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cion_jax.correlation import tracklet
from cion_jax.correlation.engine import tiles
from cion_jax.distillation.augmentation import Augmentation, make_views, sample_keys
from cion_jax.distillation.head import Head
from cion_jax.distillation.optimizer import make_optimizer
from cion_jax.distillation.step import LossSettings, Network, create_state, make_train_step
from cion_jax.features.extraction import embedder
from cion_jax.models import create_model
from cion_jax.runtime.mesh import DATA_AXIS

SIZE = (256, 128)
IMAGES = 120  # of a step, on each device
BATCH = 64  # images of an inference
IMAGES_PER_IDENTITY = 4
Tree = Any


@dataclasses.dataclass(frozen=True)
class Program:
    """A jitted function and the shapes of its arguments.

    `items` of it are processed in a run (images, rows), on all devices; `donates` if the first argument becomes the
    first result.
    """

    name: str
    function: Any
    arguments: tuple
    items: int
    donates: bool = False


def step(model: str, mesh: Mesh, *, images: int = IMAGES, prototypes: int = 65536) -> Program:
    """A training step with `images` on each device of `mesh`."""
    views, optimizer = (
        Augmentation(global_size=SIZE),
        make_optimizer(lambda step: jnp.float32(1e-4), lambda step: jnp.float32(0.04)),
    )
    structure: list[nnx.GraphDef] = []

    def initial() -> Tree:
        rngs = nnx.Rngs(0)
        backbone = create_model(model, dtype=jnp.bfloat16, rngs=rngs)
        graph, state = create_state(Network(backbone, Head(backbone.embed_dim, prototypes, rngs=rngs)), optimizer)
        structure.append(graph)
        return state

    def augment(batch: Tree, step: jax.Array, positions: jax.Array) -> Any:
        return make_views(batch["images"], batch["sizes"], sample_keys(0, step, positions), views)

    state, count = jax.eval_shape(initial), images * mesh.size
    function = make_train_step(
        structure[0], optimizer, mesh=mesh, make_views=augment, momentum=lambda step: jnp.float32(0.996),
        images_per_identity=IMAGES_PER_IDENTITY, loss=LossSettings(),
    )  # fmt: skip
    batch = {
        "images": jax.ShapeDtypeStruct((count, *SIZE, 3), jnp.uint8),
        "sizes": jax.ShapeDtypeStruct((count, 2), jnp.int32),
    }
    arguments = placed(state, mesh), placed(batch, mesh, DATA_AXIS)
    return Program(f"step {model}, {mesh.size} x {images}", function, arguments, count, donates=True)


def inference(model: str, mesh: Mesh) -> Program:
    """A model in evaluation, bfloat16."""
    graph, state = nnx.split(_evaluated(model, jnp.bfloat16))
    images = jax.ShapeDtypeStruct((BATCH, *SIZE, 3), jnp.bfloat16)
    function = jax.jit(lambda state, images: nnx.merge(graph, state)(images))
    return Program(f"inference {model}", function, (placed(state, mesh), placed(images, mesh)), BATCH)


def extraction(model: str, mesh: Mesh, precision: str) -> Program:
    """Feature extraction of a batch by a model that computes in `precision`; `cion_jax.extract` does in float32."""
    function, state = embedder(_evaluated(model, jnp.dtype(precision)))
    images = jax.ShapeDtypeStruct((BATCH, *SIZE, 3), jnp.uint8)
    arguments = placed(state, mesh), placed(images, mesh)
    return Program(f"extraction {model}, {precision}", function, arguments, BATCH)


def linking(mesh: Mesh, columns: int = 256) -> Program:
    """The largest batch of the tiles of a band of half width 1000 over 400,000 centroids, their factors of `columns`.

    A screen keeps 254 of 768 numbers as a rule, and has 256 columns; one that keeps all has 800.
    """
    rows, half_width = 400_000, 1000
    lengths = np.array([rows])
    cut = tiles.cut(tiles.Windows.within(lengths, half_width), lengths)
    shape, chosen = max(tiles.batches(cut, mesh.size), key=lambda batch: len(batch[1]))
    factors = jax.ShapeDtypeStruct((rows + tiles.widest(), columns), jnp.bfloat16)
    shared = tiles.Shared(jax.ShapeDtypeStruct((), jnp.float32), factors, factors)
    place = jax.ShapeDtypeStruct((len(chosen) // mesh.size * mesh.size,), jnp.int32)
    function = tiles.program(mesh, shape, tiles.scale())
    arguments = placed(shared, mesh), placed((place, place), mesh, DATA_AXIS)
    compared = int(cut.rows[chosen].sum())
    return Program(f"linking {shape[0]}x{shape[1]}, {columns} columns", function, arguments, compared)


def denoising(mesh: Mesh, width: int = 16, dim: int = 768) -> Program:
    """Eq. 4 on one batch of tracklets of `width` images, float32."""
    count = mesh.size * tracklet.BATCH_BYTES // (4 * width * dim)
    features = jax.ShapeDtypeStruct((count, width, dim), jnp.float16)
    lengths = jax.ShapeDtypeStruct((count,), jnp.int64)
    function = tracklet._program(mesh, jnp.float32, count // mesh.size)
    arguments = placed(jax.ShapeDtypeStruct((), jnp.float32), mesh), placed((features, lengths), mesh, DATA_AXIS)
    return Program(f"denoising, {width} images", function, arguments, count * width)


def _evaluated(model: str, dtype: Any) -> nnx.Module:
    """A model without numbers, in evaluation."""
    abstract = nnx.eval_shape(lambda: create_model(model, dtype=dtype))
    abstract.eval()
    return abstract


def placed(tree: Tree, mesh: Mesh, *axes: str) -> Tree:
    """The same shapes, with their leading axis split over these axes of the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
