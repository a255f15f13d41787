"""What agents that learn from whole episodes ask of a trajectory which began with new ones (`Agent.episodic`)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.types import Array, Transition


def whole(trajectory: Transition) -> Array:
    """Which steps belong to an episode that was seen from its start to its end, bool `[T, N]`.

    The trajectory's length is a horizon: the episode that an environment begins with counts even if it is still going
    on at the trajectory's last step. A later one that is cut off there did not have that time, and is left out.
    """
    ended = trajectory.terminated | trajectory.truncated
    ends = jax.lax.cummax(ended.astype(jnp.int32), axis=0, reverse=True) > 0
    before = jnp.cumsum(ended, axis=0) - ended
    return ends | (before == 0)


def episode_count(trajectory: Transition) -> Array:
    """How many episodes of each environment `whole` counts, float32 `[N]`, at least 1."""
    ended = trajectory.terminated | trajectory.truncated
    return jnp.maximum(jnp.sum(ended, axis=0), 1).astype(jnp.float32)


def mean_returns(trajectory: Transition) -> Array:
    """The mean undiscounted return of the episodes that `whole` counts, of each environment, float32 `[N]`."""
    return jnp.sum(trajectory.reward, axis=0, where=whole(trajectory)) / episode_count(trajectory)
