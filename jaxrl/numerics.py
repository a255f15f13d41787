"""Which numbers are computed with: 32 bits, and promotion as JAX has it by default, whatever its settings say.

So a seed has the same numbers in a process with `JAX_ENABLE_X64` as in one without, and settings that are meant for a
user's own code (`JAX_NUMPY_DTYPE_PROMOTION=strict`, `JAX_NUMPY_RANK_PROMOTION=raise`) do not stop at that of a library.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp

Function = TypeVar("Function", bound=Callable[..., Any])

CONFIG: Any = jax.config  # whose flags not every version of JAX tells to a type checker


def standard_numbers(function: Function) -> Function:
    """Decorates a function: it is computed, or traced, with JAX's default settings; 64-bit arguments become 32-bit."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _is_standard():
            return function(*args, **kwargs)
        args, kwargs = jax.tree.map(_narrow, (args, kwargs))
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return cast(Function, call)


def _is_standard() -> bool:
    promotion = CONFIG.jax_numpy_dtype_promotion, CONFIG.jax_numpy_rank_promotion
    return not CONFIG.jax_enable_x64 and promotion == ("standard", "allow")


def _narrow(x: Any) -> Any:
    if not isinstance(x, jax.Array) or jnp.issubdtype(x.dtype, jax.dtypes.prng_key) or x.dtype.itemsize < 8:
        return x
    narrow = {"f": jnp.float32, "i": jnp.int32, "u": jnp.uint32}.get(x.dtype.kind)
    return x.astype(narrow) if narrow else x
