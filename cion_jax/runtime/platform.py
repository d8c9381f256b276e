"""The platform that programs are traced for: some forms of an algorithm suit a CPU, others a GPU.

It is the default backend of JAX, unless `traced_for` names another: to export a program, or to compile one for a GPU
on a machine that has none.
"""

from contextlib import AbstractContextManager

import jax

# JAX retraces and recompiles jitted functions when the value of such a context changes.
_named = jax.make_user_context(None)


def traced_for(platform: str) -> AbstractContextManager[None]:
    """Within this context, functions are traced for `platform` ("cpu", "cuda", ...)."""
    return _named(platform)


def inference_options() -> dict[str, str]:
    """Options of XLA for programs that only run a model forward, for `jax.jit`.

    By default, XLA's CPU backend takes YNNPACK for products, convolutions and reductions. For products alone, models
    run forward 1.0 to 1.4 times as fast; training steps keep the default, with which convolutions' gradients are up to
    1.7 times as fast (benchmarks/RESULTS.md).
    """
    return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"} if on_cpu() else {}


def on_cpu() -> bool:
    """True if functions are being traced for a CPU."""
    return (_named.value or jax.default_backend()) == "cpu"
