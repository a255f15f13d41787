"""How an agent departs from what it thinks is best."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.types import Array, Key


def epsilon_greedy(key: Key, q_values: Array, epsilon: Array | float) -> Array:
    """With probability `epsilon` an action drawn uniformly, else the one of the highest value.

    Args:
      key: one key for the whole batch.
      q_values: `[..., num_actions]`.
      epsilon: in [0, 1], broadcastable to `[...]`.

    Returns:
      actions, int32 `[...]`.
    """
    explore_key, action_key = jax.random.split(key)
    shape = q_values.shape[:-1]
    random = jax.random.randint(action_key, shape, 0, q_values.shape[-1])
    explore = jax.random.uniform(explore_key, shape) < epsilon
    return jnp.where(explore, random, jnp.argmax(q_values, axis=-1)).astype(jnp.int32)
