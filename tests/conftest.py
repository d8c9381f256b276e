"""Every test runs on eight CPU devices, so that what is sharded can be compared with what is not."""

import os

# Compiling takes nearly all tests far longer than running what was compiled; also in the processes that they start.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture
def optimised():
    """For tests of the programs that XLA compiles."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
