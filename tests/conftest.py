"""Two CPU devices, so that sharding is exercised everywhere; programs that compile quickly, and a cache of them."""

import os
import pathlib

import jax
import pytest

QUICK = "jax_disable_most_optimizations"

jax.config.update("jax_num_cpu_devices", 2)
cache = pathlib.Path(os.environ.get("JAXRL_TEST_CACHE", pathlib.Path(__file__).parent.parent / ".jax_cache"))
jax.config.update("jax_compilation_cache_dir", str(cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Compiles without optimizations, in subprocesses, too; but for tests that are marked `slow` or `optimized`.

    A hook and not a fixture, as fixtures of a module compile before those of a test.
    """
    quick = not any(item.get_closest_marker(name) for name in ("slow", "optimized"))
    jax.config.update(QUICK, quick)
    os.environ[QUICK.upper()] = str(int(quick))
    return (yield)
