"""How an agent departs from what it thinks is best."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxrl import checks
from jaxrl.types import Array, Key


def epsilon_greedy(key: Key, q_values: Array, epsilon: ArrayLike) -> Array:
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


def epsilon_greedy_probabilities(q_values: Array, epsilon: ArrayLike) -> Array:
    """The probability of each action under `epsilon_greedy`: `[..., num_actions]`, float32."""
    greedy = _greedy(q_values).astype(jnp.float32)
    greedy = greedy / greedy.sum(axis=-1, keepdims=True)
    epsilon = jnp.asarray(epsilon, jnp.float32)[..., None]
    return epsilon / q_values.shape[-1] + (1 - epsilon) * greedy


def linear_epsilon(
    owner: str, epsilon_start: Array | float, epsilon_final: Array | float, epsilon_decay_steps: int
) -> optax.Schedule:
    """Epsilon as a function of the environment step: linear from the first to the second, and constant after that.

    Args:
      owner: whose arguments these are, such as "dqn".
      epsilon_start: probability of a random action at the first step, in [0, 1].
      epsilon_final: the same once it has decayed, in [0, 1].
      epsilon_decay_steps: environment steps that this takes, at least 1.

    Raises:
      JaxrlError: where one is out of its range.
    """
    checks.number(owner, 0, 1, epsilon_start=epsilon_start, epsilon_final=epsilon_final)
    checks.integer(owner, epsilon_decay_steps=epsilon_decay_steps)
    return optax.linear_schedule(epsilon_start, epsilon_final, epsilon_decay_steps)


def spread_epsilons(epsilon: ArrayLike, spread: Array | float, num_envs: int) -> Array:
    """One epsilon for each of N environments, `[N]`; the first has the given one.

    ```
    epsilon_i = epsilon^(1 + spread i / (N - 1)),  i = 0 .. N - 1
    ```

    Horgan et al. (2018), section 4.1, where epsilon is 0.4 and the spread 7. A spread of 0 gives all the same.

    >>> [round(float(x), 4) for x in spread_epsilons(0.5, 2.0, 3)]
    [0.5, 0.25, 0.125]
    """
    return jnp.asarray(epsilon, jnp.float32) ** (1 + spread * jnp.arange(num_envs) / max(num_envs - 1, 1))


def gaussian(key: Key, action: Array, scale: Array | float) -> Array:
    """The action plus Gaussian noise, drawn apart for each number: `action + scale * N(0, 1)`.

    Args:
      key: one key for the whole batch.
      action: `[..., action_size]`.
      scale: standard deviation, broadcastable to the action.

    Returns:
      `[..., action_size]`, not clipped.
    """
    return action + scale * jax.random.normal(key, action.shape)


def ornstein_uhlenbeck(key: Key, state: Array, theta: Array | float = 0.15, scale: Array | float = 1.0) -> Array:
    """The next state of noise that wanders about 0 (Uhlenbeck and Ornstein 1930; for exploring, Lillicrap et al. 2016).

    ```
    x' = (1 - theta) x + scale * sqrt(theta (2 - theta)) * N(0, 1)
    ```

    Steps that are `k` apart correlate with (1 - theta)^k. From 0, as an episode begins, the standard deviation rises to
    `scale`: after k steps it is scale * sqrt(1 - (1 - theta)^(2 k)). (Who knows the noise by its sigma, as in
    Lillicrap et al. 0.2 with a theta of 0.15: scale = sigma / sqrt(theta (2 - theta)), there 0.38.)

    Args:
      key: one key for the whole batch.
      state: x, `[..., action_size]`; zeros where an episode begins.
      theta: which part of the state is forgotten, in (0, 1]; 1 makes it Gaussian noise.
      scale: standard deviation in the long run, broadcastable to the state.

    Returns:
      x', `[..., action_size]`: the noise, and the next state.
    """
    return gaussian(key, (1 - theta) * state, scale * jnp.sqrt(theta * (2 - theta)))


def _greedy(q_values: Array) -> Array:
    return q_values == q_values.max(axis=-1, keepdims=True)
