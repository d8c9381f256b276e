"""Rows of the table of GPU programs."""

import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.gpu.card import Card
from benchmarks.gpu.counts import Counts, count
from benchmarks.gpu.programs import Program

_COLUMNS = (
    "program", "compiled in s", "temp + state GiB", "kernels (under 3 us)", "GB", "TFLOP",
    "products bf16 / tf32 / f32", "convolutions bf16 / tf32 / f32", "dilated", "bf16 sums", "transposes, GB",
    "scatters", "all-reduces (exposed), MB", "at best ms", "at best a second", "measured ms (at best / measured)",
)  # fmt: skip
HEADER = f"| {' | '.join(_COLUMNS)} |\n|{' --- |' * len(_COLUMNS)}"
_REPEATS = 5


def compiled_row(program: Program, compiled: Any, card: Card, compile_seconds: float, *, run: bool) -> str:
    """The row of a compiled program, which is also timed if `run`."""
    counts, memory = count(compiled.as_text(), card), compiled.memory_analysis()
    measured = ""
    if run:
        fastest = seconds(program, compiled)
        measured = f"{1e3 * fastest:.2f} ({counts.seconds / fastest:.2f})"
    cells = (
        program.name,
        f"{compile_seconds:.0f}",
        f"{memory.temp_size_in_bytes / 2**30:.2f} + {memory.alias_size_in_bytes / 2**30:.2f}",
        f"{counts.kernels:,} ({counts.short:,})",
        f"{counts.bytes / 1e9:.2f}",
        f"{counts.flops / 1e12:.3f}",
        _by_type(counts, "dot"),
        _by_type(counts, "convolution"),
        str(counts.dilated),
        str(counts.low_sums),
        f"{counts.transposes}, {counts.transposed / 1e9:.2f}",
        str(counts.scatters),
        f"{counts.all_reduces} ({counts.exposed}), {counts.reduced / 1e6:.1f}",
        f"{1e3 * counts.seconds:.2f}",
        f"{program.items / counts.seconds:,.0f}",
        measured,
    )
    return f"| {' | '.join(cells)} |"


def failed_row(program: Program, error: Exception) -> str:
    """The row of a program that does not compile."""
    reason = " ".join(str(error).split()).replace("|", "/")[:200]
    return f"| {program.name} | no: {reason} |{' |' * (len(_COLUMNS) - 2)}"


def _by_type(counts: Counts, kind: str) -> str:
    return " / ".join(str(counts.products.get((kind, dtype), 0)) for dtype in ("bf16", "tf32", "f32"))


def seconds(program: Program, compiled: Any) -> float:
    """The shortest of some runs on random arguments."""
    arguments, fastest = list(_filled(program.arguments)), float("inf")
    for _ in range(_REPEATS + 1):
        started = time.perf_counter()
        result = jax.block_until_ready(compiled(*arguments))
        fastest = min(fastest, time.perf_counter() - started)
        if program.donates:
            arguments[0] = result[0]
    return fastest


def _filled(tree: Any) -> Any:
    """Arrays of these shapes: small positive floats, ones for integers, where their shardings say."""

    def array(x: jax.ShapeDtypeStruct) -> jax.Array:
        if jnp.issubdtype(x.dtype, jnp.floating):
            return jax.random.uniform(jax.random.key(0), x.shape, jnp.float32, 0.01, 0.02).astype(x.dtype)
        return jnp.ones(x.shape, x.dtype)

    return jax.tree.map(lambda x: jax.jit(array, static_argnums=0, out_shardings=x.sharding)(x), tree)
