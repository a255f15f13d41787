"""Goals that an observation ends with: what bits, points and arms are to reach."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from jaxrl.types import Array, Goal


def goal_at_the_end(reached: Callable[[Array, Array], Array], size: int | None = None) -> Goal:
    """The goal of observations whose last numbers are what is wanted, and those before them what has been achieved.

    The reward is 0 for the step that gets there, which terminates, and -1 for any other.

    Args:
      reached: `reached(achieved, wanted)`, whether the one is close enough to the other, bool `[...]`.
      size: how many numbers it has; half of the observation unless given.
    """

    def achieved(obs: Array) -> Array:
        size_of = size or obs.shape[-1] // 2
        return obs[..., -2 * size_of : obs.shape[-1] - size_of]

    def replace(obs: Array, goal: Array) -> Array:
        kept = obs[..., : obs.shape[-1] - achieved(obs).shape[-1]]
        return jnp.concatenate([kept, jnp.broadcast_to(goal, achieved(obs).shape)], axis=-1)

    def reward(found: Array, wanted: Array) -> tuple[Array, Array]:
        there = reached(found, wanted)
        return jnp.where(there, jnp.float32(0), jnp.float32(-1)), there

    return Goal(achieved, replace, reward)
