"""JAX's own random numbers, several times as fast inside a loop on a CPU.

JAX lowers its generator, Threefry-2x32 (Salmon et al. 2011), to a loop of five turns on CPUs, and inside the training
loop the overhead of those small loops is what most of a rollout's time goes to. `unrolled` gives a key of the same
numbers whose draws are straight-line code: on two CPU cores the draws of a CartPole step, for one seed or for 32, take
a quarter of the time. A program that is lowered for another platform draws with JAX's own generator.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.extend.random
import jax.numpy as jnp

from jaxrl.numerics import CONFIG
from jaxrl.types import Array, Key, PyTree

Function = TypeVar("Function", bound=Callable[..., Any])

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _threefry(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds: the block of the counter `(high, low)` under a key uint32 `[2]`.

    Which code computes it is decided when a program is lowered, by the platform that it is lowered for.
    """
    return jax.lax.platform_dependent(key, high, low, cpu=_straight_line, default=_stock)


def _stock(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    return tuple(jax.extend.random.threefry2x32_p.bind(key[0], key[1], high, low))


def _straight_line(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    x, y = high + schedule[0], low + schedule[1]
    for group in range(5):
        for turn in _ROTATIONS[group % 2]:
            x = x + y
            y = ((y << turn) | (y >> (32 - turn))) ^ x
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return jax.lax.optimization_barrier(
        (x, y)
    )  # or XLA repeats the rounds in each of many fusions: minutes of compiling


def _blocks(key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    size = math.prod(shape)
    if size >= 2**32:
        raise NotImplementedError(f"a draw of {size} numbers at once; the counter holds at most 2**32 - 1")
    low = jax.lax.iota(jnp.uint32, size).reshape(shape)
    return _threefry(key, jnp.zeros_like(low), low)


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.stack(_blocks(key, tuple(shape)), axis=-1)


def _fold_in(key: Array, data: Any) -> Array:
    return jnp.stack(_threefry(key, jnp.uint32(0), jnp.asarray(data).astype(jnp.uint32)))


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    x, y = _blocks(key, tuple(shape))
    if bit_width == 64:
        return (x.astype(jnp.uint64) << 32) | y.astype(jnp.uint64)
    return (x ^ y).astype(f"uint{bit_width}")


@functools.cache
def _implementation():
    return jax.extend.random.define_prng_impl(
        key_shape=(2,),
        seed=lambda seed: jnp.stack([jnp.uint32(0), jnp.asarray(seed).astype(jnp.uint32)]),
        split=_split,
        random_bits=_random_bits,
        fold_in=_fold_in,
        name="threefry2x32_unrolled",
        tag="unrolled",
    )


def unrolled(key: Key) -> Key:
    """The same key, with faster draws in programs for CPUs; a key of another generator is returned as it is.

    Args:
      key: a key, or keys, of any shape; old-style `uint32 [..., 2]` ones are taken, too.

    Returns:
      typed keys of the same shape, from which every `jax.random` function draws the same numbers.
    """
    if not is_key(key):
        key = jax.random.wrap_key_data(key)
    stock = str(jax.random.key_impl(key)) == "threefry2x32" and CONFIG.jax_threefry_partitionable
    if not stock:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_implementation())


def by_threefry(function: Function) -> Function:
    """Decorates a function: the keys that it makes are of JAX's default generator, whatever JAX's settings say.

    What a key of that draws does not depend on what is drawn beside it under `vmap`; with `rbg` it does.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with jax.default_prng_impl("threefry2x32"), jax.threefry_partitionable(True):
            return function(*args, **kwargs)

    return cast(Function, call)


def is_key(x: Any) -> bool:
    """Whether something is an array of typed keys, or looks like one."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def as_numbers(tree: PyTree) -> PyTree:
    """The tree, and in place of its keys the integers that they are made of."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def from_numbers(x: Any, like: Any) -> Any:
    """One of the leaves of `as_numbers`, as the key that it was, or as it is where `like` is none."""
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(jnp.empty((), like.dtype))) if is_key(like) else x
