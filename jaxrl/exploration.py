"""How an agent departs from what it thinks is best."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.types import Array, Key


def epsilon_greedy(key: Key, q_values: Array, epsilon: Array | float) -> Array:
    """With probability `epsilon` an action drawn uniformly, else one of the highest value, ties broken at random.

    Args:
      key: one key for the whole batch.
      q_values: `[..., num_actions]`.
      epsilon: in [0, 1], broadcastable to `[...]`.

    Returns:
      actions, int32 `[...]`.
    """
    explore_key, action_key = jax.random.split(key)
    explore = jax.random.uniform(explore_key, q_values.shape[:-1]) < epsilon
    allowed = explore[..., None] | _greedy(q_values)
    order = jax.random.uniform(action_key, q_values.shape)
    return jnp.argmax(jnp.where(allowed, order, -1.0), axis=-1).astype(jnp.int32)


def epsilon_greedy_probabilities(q_values: Array, epsilon: Array | float) -> Array:
    """The probability of each action under `epsilon_greedy`: `[..., num_actions]`, float32."""
    greedy = _greedy(q_values).astype(jnp.float32)
    greedy = greedy / greedy.sum(axis=-1, keepdims=True)
    epsilon = jnp.asarray(epsilon, jnp.float32)[..., None]
    return epsilon / q_values.shape[-1] + (1 - epsilon) * greedy


def _greedy(q_values: Array) -> Array:
    return q_values == q_values.max(axis=-1, keepdims=True)
