"""Cost and precision of a step: no repeated work, donated state, gradient accumulation, rematerialisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from benchmarks import step as benchmark
from cion_jax.distillation.augmentation import Augmentation
from cion_jax.distillation.head import Head
from cion_jax.distillation.step import LossSettings, Network, apply, create_state, make_train_step, rematerialised
from cion_jax.models import create_model
from cion_jax.runtime.mesh import make_mesh, replicate, shard_batch

VIEWS = Augmentation(global_size=(64, 32), local_size=(32, 32), local_views=2)


def views_of(images, step, positions):
    """Views that differ with the image's place in the global batch and with the step."""
    x = images * (1 + 0.1 * step + 0.01 * positions[:, None, None, None]).astype(images.dtype)
    return jnp.stack([x, x[:, :, ::-1]]), jnp.stack([x[:, :32], x[:, 32:]])


def step_and_state(model="convnext_test", devices=1, dtype=jnp.float32, **options):
    rngs, optimizer = nnx.Rngs(0), optax.sgd(1e-6, momentum=0.9)  # gradients are large here
    backbone = create_model(model, rngs=rngs, dtype=dtype)
    network = Network(backbone, Head(backbone.embed_dim, 48, hidden_dim=24, bottleneck_dim=16, rngs=rngs))
    mesh = make_mesh(jax.devices()[:devices])
    structure, state = create_state(network, optimizer)
    step = make_train_step(
        structure, optimizer, mesh=mesh, make_views=views_of, momentum=lambda s: 0.9,
        images_per_identity=2, loss=LossSettings(), **options,
    )  # fmt: skip
    return step, replicate(state, mesh), mesh


def images(seed=0):
    return np.random.default_rng(seed).normal(size=(8, 64, 32, 3)).astype(np.float32)


def after_two_steps(**options):
    step, state, mesh = step_and_state(**options)
    metrics = []
    for index in range(2):
        state, values = step(state, shard_batch(images(index), mesh))
        metrics.append(jax.device_get(values))
    assert step._cache_size() == 1  # every step of a stage is one program
    return jax.device_get(vars(state)), metrics


@pytest.fixture(scope="module")
def plain():
    return after_two_steps()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"remat": True}, {"accumulate": 2, "devices": 2}], ids=str)
def test_saving_memory_changes_nothing_where_there_is_no_batch_norm(options, plain):
    state, metrics = after_two_steps(**options)
    for part, expected in plain[0].items():
        for ours, theirs in zip(jax.tree.leaves(state[part]), jax.tree.leaves(expected)):
            scale = np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * scale, err_msg=part)
    for ours, theirs in zip(metrics, plain[1]):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_micro_batches_that_would_cut_identities_are_refused():
    step, state, mesh = step_and_state(accumulate=8)
    with pytest.raises(ValueError, match="1 images can't be cut into identities of 2"):
        step.lower(state, shard_batch(images(), mesh))


def equations(jaxpr):
    """All equations, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def test_low_precision_computes_in_it_and_keeps_everything_else_in_float32():
    step, state, mesh = step_and_state("vit_test", dtype=jnp.bfloat16)
    traced = step.trace(state, shard_batch(images(), mesh))
    assert all(x.dtype != jnp.bfloat16 for x in jax.tree.leaves(traced.out_info))
    sensitive, products = set(), {}
    for equation in equations(traced.jaxpr.jaxpr):
        name, dtypes = equation.primitive.name, {str(x.aval.dtype) for x in equation.invars}
        if name in ("log", "rsqrt", "sqrt", "reduce_max", "psum"):
            sensitive |= dtypes
        if name in ("conv_general_dilated", "dot_general"):
            size = max(x.aval.size for x in equation.invars)
            products[str(dtypes)] = products.get(str(dtypes), 0) + size
    assert "bfloat16" not in sensitive
    assert products["{'bfloat16'}"] > 0.95 * sum(products.values())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vit_test", "convnext_test"])
def test_the_step_does_no_work_twice(model):
    """`python -m benchmarks.step --flops --model=...` says the same of the full models."""
    step = benchmark.parts(model, batch=8, prototypes=256, views=VIEWS, dtype=jnp.float32)
    assert 0.8 < benchmark.excess(step) < 1.10


def test_rematerialisation_keeps_little_for_the_backward_pass():
    """Counted before XLA's optimisation: on a CPU it may merge repeated computations again."""
    backbone = create_model("convnext_test")
    network = Network(backbone, Head(backbone.embed_dim, 48, hidden_dim=24, bottleneck_dim=16, rngs=nnx.Rngs(0)))
    structure, state = create_state(network, optax.sgd(1e-2))
    mesh, whole = make_mesh(jax.devices()[:1]), jax.sharding.PartitionSpec()

    def kept(forward):
        def embeddings(params):
            return forward(params, state.student_stats, jnp.zeros((2, 8, 64, 32, 3)))[0][0].sum()

        inside = jax.shard_map(embeddings, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
        _, backward = jax.eval_shape(lambda params: jax.vjp(inside, params), state.student)
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(backward))

    plain = functools.partial(apply, structure)
    assert kept(rematerialised(plain)) < kept(plain) / 2.5  # GELU keeps one array of three by itself
