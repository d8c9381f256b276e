"""GPU programs compile for a card that is not there, in the forms and number types that are meant.

`bash launch/test.sh --gpu-compile` installs the CUDA plugin of JAX, which needs no GPU, and runs this file alone.
"""

import re

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

pytest.importorskip("jax_cuda12_plugin", reason="compiling for GPUs needs benchmarks/gpu/requirements.txt")

from benchmarks.gpu import programs
from benchmarks.gpu.card import CARDS
from benchmarks.gpu.counts import count
from cion_jax.models import create_model
from cion_jax.models.layers import BatchNorm
from cion_jax.runtime.mesh import DATA_AXIS
from cion_jax.runtime.platform import traced_for

FAMILIES = ["resnet_ibn", "vit", "convnext", "swin", "edgenext", "volo", "ghostnet", "repvit", "fastvit"]


@pytest.fixture(autouse=True)
def traced_for_cuda():
    """XLA:GPU does not compile without its optimisations, which conftest turns off for the CPU."""
    jax.config.update("jax_disable_most_optimizations", False)
    with traced_for("cuda"):
        yield
    jax.config.update("jax_disable_most_optimizations", True)


def counts_of(function, *arguments, card=CARDS["h200"]):
    return count(function.lower(*arguments).compile().as_text(), card)


def gradient_counts(name, devices):
    """Counts of the gradient of a small model in bfloat16 at two resolutions, with BatchNorm over all devices."""
    network = nnx.eval_shape(lambda: create_model(name, dtype=jnp.bfloat16))
    network.train()
    network.set_attributes(axis_name=DATA_AXIS, raise_if_not_found=False)
    graph, state, rest = nnx.split(network, nnx.Param, ...)

    def loss(state, rest, *resolutions):
        model = nnx.merge(graph, state, rest, copy=True)
        return sum(jnp.square(model(images)).sum(dtype=jnp.float32) for images in resolutions)

    mesh, whole, split = CARDS["h200"].mesh(devices), PartitionSpec(), PartitionSpec(DATA_AXIS)
    gradient = jax.shard_map(
        jax.grad(loss), mesh=mesh, in_specs=(whole, whole, split, split), out_specs=whole, check_vma=False
    )
    images = [jax.ShapeDtypeStruct((8 * devices, height, 32, 3), jnp.bfloat16) for height in (64, 32)]
    return counts_of(
        jax.jit(gradient), *programs.placed((state, rest), mesh), *programs.placed(images, mesh, DATA_AXIS)
    )


def batch_norms(name):
    return sum(isinstance(module, BatchNorm) for _, module in nnx.iter_graph(create_model(name)))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_forward_and_backward_are_in_the_number_types_that_are_meant(family):
    counts = gradient_counts(f"{family}_test", 1)
    assert not {("convolution", "tf32"), ("convolution", "f32")} & counts.products.keys()
    assert (counts.dilated, counts.low_sums) == (0, 0)


@pytest.mark.slow
def test_a_batch_norm_sends_one_all_reduce_each_way_and_pooling_scatters_nothing():
    norms = batch_norms("resnet_ibn_test")
    counts = gradient_counts("resnet_ibn_test", 8)
    assert 0 < counts.all_reduces <= 2 * 2 * norms  # two resolutions
    assert counts.scatters == 0


@pytest.mark.slow
def test_a_step_keeps_gradients_of_kernels_in_the_order_of_their_axes():
    program = programs.step("resnet_ibn_test", CARDS["h200"].mesh(8), images=8, prototypes=1024)
    text = program.function.lower(*program.arguments).compile().as_text()
    counts = count(text, CARDS["h200"])
    assert not {("convolution", "tf32"), ("convolution", "f32")} & counts.products.keys()
    assert (counts.dilated, counts.low_sums, counts.scatters) == (0, 0, 0)
    assert not re.search(r"f32\[(\d+,){3}\d+\]\{(?!3,2,1,0)[\d,]+\} all-reduce", text)
    norms = batch_norms("resnet_ibn_test")
    # BatchNorm: two resolutions each way and the teacher forward; everything else in a few pieces
    assert 0 < counts.all_reduces <= 5 * norms + 4


@pytest.mark.slow
def test_linking_and_denoising_compile():
    mesh = CARDS["h200"].mesh(1)
    for program in (programs.linking(mesh), programs.denoising(mesh)):
        assert counts_of(program.function, *program.arguments).kernels > 0
