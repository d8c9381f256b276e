"""Every test runs on eight CPU devices, so that what is sharded can be compared with what is not."""

import ctypes
import gc
import os

# Compiling takes nearly all tests far longer than running what was compiled; also in the processes that they start.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)


def pytest_addoption(parser):
    parser.addoption("--fuzz-seconds", type=float, default=0, help="Seconds that every fuzz test goes on for.")


@pytest.fixture
def fuzz_seconds(request) -> float:
    """Time for a fuzz test, for `tests.fuzzing.repeat`; 0, the default, stands for a single short round."""
    return request.config.getoption("--fuzz-seconds")


@pytest.fixture
def optimised():
    """For tests of the programs that XLA compiles."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module", autouse=True)
def give_memory_back():
    """Frees what a module's programs and arrays held; malloc keeps gigabytes of it otherwise, for every worker."""
    yield
    jax.clear_caches()
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc only
        trim(0)
