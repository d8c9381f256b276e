"""Hints to XLA, each for one platform."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from cion_jax.runtime.platform import on_cpu


def materialised(x: jax.Array) -> jax.Array:
    """`x` itself, which XLA's CPU compiler then computes once and keeps.

    By default it computes additions and products again for each of their readers, and for these what they read in
    turn. A chain of blocks `x + branch(x)` is computed anew in every block that way, from the first one on, and a
    depthwise convolution does so for every tap: RepViT-M1.5 took nine times as long. `lax.optimization_barrier` is
    dropped before that is decided, but what leads to a conditional is never merged with what follows. The condition of
    this one never holds.
    """
    return _kept(x) if on_cpu() else x


def not_fused(x: jax.Array) -> jax.Array:
    """`x` itself, which XLA:GPU then does not fuse with what reads it.

    For VOLO's class token: jax 0.10.2 fused its concatenation with the patches, the norm after it and the choice of the
    token into a Triton kernel that does not compile ("'scf.if' op ... successor operand type").
    """
    return x if on_cpu() else lax.optimization_barrier(x)


def row_major(x: jax.Array) -> jax.Array:
    """`x` itself; XLA:GPU then stores it in the order of its axes if it has four.

    For gradients: cuDNN returns those of kernels `[size, size, in, out]` with the axis `out` first. XLA then updated
    parameters, moments and teacher in that order, and transposed and copied each of them back. Matrices are left alone:
    with their gradients in a set order, XLA transposed ViT's activations (46 GB instead of 5 in a step of ViT-Base).
    """
    return x if on_cpu() or x.ndim != 4 else with_layout_constraint(x, Layout((0, 1, 2, 3)))


@jax.custom_jvp
def _kept(x: jax.Array) -> jax.Array:
    first = x[(0,) * x.ndim]
    never = jnp.isnan(first) & jnp.isinf(first)
    return lax.cond(never, lambda x: -x, lambda x: x, x)


@_kept.defjvp
def _kept_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _kept(*primals), *tangents
