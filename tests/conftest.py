"""Two CPU devices, so that sharding is exercised everywhere, and a compilation cache that outlives a run."""

import os
import pathlib

import jax

jax.config.update("jax_num_cpu_devices", 2)
cache = pathlib.Path(os.environ.get("JAXRL_TEST_CACHE", pathlib.Path(__file__).parent.parent / ".jax_cache"))
jax.config.update("jax_compilation_cache_dir", str(cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
