"""Between the actions of a policy, which are of the order of 1, and those of an environment."""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl.types import Array, Box, Discrete, Space


def to_action_space(action: Array, space: Space) -> Array:
    """What the environment gets for a policy's action: [-1, 1] is mapped onto finite bounds, and the rest cut off."""
    if isinstance(space, Discrete):
        return action
    if not space.bounded:
        return jnp.clip(action, space.low, space.high)
    return space.low + (jnp.clip(action, -1.0, 1.0) + 1.0) / 2.0 * (space.high - space.low)


def from_action_space(action: Array, space: Box) -> Array:
    """Finite bounds mapped onto [-1, 1]: what `to_action_space` made an action of, but for what it cut off."""
    return 2.0 * (action - space.low) / (space.high - space.low) - 1.0
