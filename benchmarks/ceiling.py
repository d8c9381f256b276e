"""The rate of matrix products on this machine, measured in the run that uses it."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def best_seconds(function: Callable[..., Any], *arguments: Any, repeats: int = 7) -> float:
    """The shortest of several runs, after one that compiles."""
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def matmul_rate(dtype: Any = jnp.float32, inner: int = 768) -> float:
    """Operations per second of the fastest matrix product `[s, inner] x [inner, s]` over a few sizes s."""
    product = jax.jit(lambda a: jnp.matmul(a, a.T, precision=None if dtype == jnp.bfloat16 else "highest"))
    rates = []
    for side in (512, 1024, 2048, 4096) if jax.default_backend() == "cpu" else (4096, 8192, 16384):
        matrix = jnp.asarray(np.random.default_rng(0).normal(size=(side, inner)), dtype)
        rates.append(2 * side * side * inner / best_seconds(product, matrix))
    return max(rates)


def machine() -> str:
    """The devices and versions that a table was measured with, in one line."""
    device, count = jax.devices()[0], len(jax.devices())
    return f"{count} x {device.device_kind} ({device.platform}), jax {jax.__version__}, NumPy {np.__version__}"
