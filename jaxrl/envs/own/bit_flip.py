"""Bits to flip one by one until they are those wanted: the task that shows what hindsight is for."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.envs.own.goals import goal_at_the_end
from jaxrl.types import Array, Discrete, Env, Key, Outcome, Spec, box

MAX_BITS = 1024


class BitFlipState(NamedTuple):
    """The bits and those wanted, both float32 `[num_bits]`, and the steps taken in this episode, int32."""

    bits: Array
    wanted: Array
    time: Array


def bit_flip(*, num_bits: int = 15) -> Env:
    """An action flips one bit; -1 a step until all are as wanted (Andrychowicz et al. 2017, section 3.1).

    The step that gets there has reward 0 and terminates. Truncated after `num_bits` steps, enough for every goal; by
    chance no agent meets one of `2 ** num_bits`. Observations are float32 `[2 * num_bits]`, the bits and then those
    wanted, each 0 or 1. Both are drawn uniformly; where they come out equal, one of the bits wanted, any with the same
    probability, is flipped, so no episode begins solved.

    Args:
      num_bits: how many bits there are, and actions; at most 1024.

    Raises:
      JaxrlError: if it is not a whole number from 1 to 1024.
    """
    id = "jaxrl/BitFlip-v0"
    checks.integer(id, num_bits=num_bits)
    if num_bits > MAX_BITS:
        raise checks.JaxrlError(f"{id}: num_bits={num_bits} is not accepted; it must be at most {MAX_BITS}")

    def reset(key: Key) -> tuple[BitFlipState, Array]:
        pair_key, flip_key = jax.random.split(key)
        bits, wanted = jax.random.bernoulli(pair_key, shape=(2, num_bits)).astype(jnp.float32)
        other = _flip(wanted, jax.random.randint(flip_key, (), 0, num_bits))
        wanted = jnp.where(jnp.all(bits == wanted), other, wanted)
        return BitFlipState(bits, wanted, jnp.int32(0)), jnp.concatenate([bits, wanted])

    def step(key: Key, old: BitFlipState, action: Array) -> tuple[BitFlipState, Outcome]:
        new = BitFlipState(_flip(old.bits, action), old.wanted, old.time + 1)
        reward, terminated = GOAL.reward(new.bits, new.wanted)
        truncated = (new.time >= num_bits) & ~terminated
        return new, Outcome(jnp.concatenate([new.bits, new.wanted]), reward, terminated, truncated)

    return Env(reset, step, Spec(id, box(0, 1, (2 * num_bits,)), Discrete(num_bits), num_bits, goal=GOAL))


def _flip(bits: Array, index: Array) -> Array:
    return jnp.where(jnp.arange(bits.shape[-1]) == index, 1 - bits, bits)


GOAL = goal_at_the_end(lambda bits, wanted: jnp.all(bits == wanted, axis=-1))
