"""Hints to XLA that depend on the platform: some forms suit a CPU, others an accelerator.

The choice is made when a function is traced, for `jax.default_backend()` or the platform that `traced_for` names.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax

_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Traces for `platform` ("cpu", "cuda", ...) instead of this machine's default backend, for export."""
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)


def on_cpu() -> bool:
    """Whether what is traced now is meant for a CPU."""
    return (_platform.get() or jax.default_backend()) == "cpu"


def materialised(x: jax.Array) -> jax.Array:
    """`x` itself, which XLA's CPU compiler then computes once and keeps.

    By default it computes additions and products again for each of their readers, and for these what they read in
    turn. A chain of blocks `x + branch(x)` is computed anew in every block that way, from the first one on, and a
    depthwise convolution does so for every tap: RepViT-M1.5 took nine times as long. `lax.optimization_barrier` is
    dropped before that is decided, but what leads to a conditional is never merged with what follows. The condition of
    this one never holds.
    """
    return _kept(x) if on_cpu() else x


@jax.custom_jvp
def _kept(x: jax.Array) -> jax.Array:
    first = x[(0,) * x.ndim]
    never = jnp.isnan(first) & jnp.isinf(first)
    return lax.cond(never, lambda x: -x, lambda x: x, x)


@_kept.defjvp
def _kept_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _kept(*primals), *tangents
