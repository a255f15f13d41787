"""Between the actions of a policy, which are of the order of 1, and those of an environment.

Policies are over real numbers, and so are their log-probabilities. Where an environment takes whole numbers, actions
are rounded on their way to it, and nowhere else. A critic learns of what was done: the rounded action, scaled back.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl import checks
from jaxrl.networks.actor_critic import check_policy
from jaxrl.types import Array, Box, Discrete, Space, Spec


def to_action_space(action: Array, space: Space) -> Array:
    """What the environment gets for a policy's action: [-1, 1] is mapped onto finite bounds, and the rest cut off.

    It is of the space's dtype; whole numbers are the nearest ones.
    """
    if isinstance(space, Discrete):
        return action
    if not space.bounded:
        return space.cast(jnp.clip(action, space.low, space.high))
    return space.cast(space.low + (jnp.clip(action, -1.0, 1.0) + 1.0) / 2.0 * (space.high - space.low))


def from_action_space(action: Array, space: Space) -> Array:
    """Finite bounds mapped onto [-1, 1]: what `to_action_space` got, but for what it cut off or rounded."""
    if isinstance(space, Discrete):
        return action
    return 2.0 * (action - space.low) / (space.high - space.low) - 1.0


def check_bounded(owner: str, spec: Spec, instead: str):
    """Checks that an environment's actions are vectors between finite bounds; whole numbers at most 2**24.

    Args:
      owner: the agent.
      spec: the environment's.
      instead: the agents to use where actions are discrete, such as "dqn".

    Raises:
      JaxrlError: if they are not.
    """
    space = spec.action_space
    if not isinstance(space, Box):
        raise checks.JaxrlError(f"{owner}: {spec.id} has discrete actions; it needs continuous ones, or use {instead}")
    check_policy(owner, spec)
    if not space.bounded or not (space.low < space.high).all():
        raise checks.JaxrlError(
            f"{owner}: {spec.id} has actions between {space.low.tolist()} and {space.high.tolist()}; it needs finite "
            f"bounds, at most {space.limit}, the lower ones below the upper, or use ppo"
        )
