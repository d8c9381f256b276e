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


def on_cpu() -> bool:
    """True if functions are being traced for a CPU."""
    return (_named.value or jax.default_backend()) == "cpu"
