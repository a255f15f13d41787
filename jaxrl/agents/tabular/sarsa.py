"""Sarsa (Rummery and Niranjan 1994; Sutton and Barto 2018, section 6.4)."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxrl.constructors import agent_constructor
from jaxrl.exploration import epsilon_greedy, linear_epsilon
from jaxrl.learning import tables as common
from jaxrl.types import Agent, Array, Key, Metrics, Spec, Transition


class SarsaState(NamedTuple):
    """The environment's spec, which is static, the action values `q`, `[S, A]`, and the next action, int32 `()`."""

    spec: Spec
    q: Array
    next_action: Array


@agent_constructor
def sarsa(
    *,
    learning_rate: float = 0.1,
    gamma: float = 0.99,
    epsilon_start: float = 1.0,
    epsilon_final: float = 0.0,
    epsilon_decay_steps: int = 10_000,
    initial_value: float = 0.0,
) -> Agent:
    """Sarsa with a table, for discrete states and actions.

    Moves Q(s, a) towards r + gamma Q(s', a'), where a' is the action that follows: it learns about the policy that it
    has, with its exploring (Sutton and Barto 2018, equation 6.7).

    Args:
      learning_rate: step size alpha, in (0, 1].
      gamma: discount, in [0, 1].
      epsilon_start: probability of a random action at the first step, in [0, 1].
      epsilon_final: the same once it has decayed, in [0, 1].
      epsilon_decay_steps: environment steps over which epsilon falls linearly from the one to the other.
      initial_value: what the table holds before learning.

    Returns:
      an `Agent`; its metrics are td_error (the size of the temporal-difference error) and epsilon.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.
    """
    common.check_learning("sarsa", learning_rate, gamma, initial_value)
    epsilon_at = linear_epsilon("sarsa", epsilon_start, epsilon_final, epsilon_decay_steps)

    def init(key: Key, spec: Spec) -> SarsaState:
        return SarsaState(spec, common.action_values("sarsa", spec, initial_value), jnp.int32(0))

    def update(state: SarsaState, trajectory: Transition, key: Key, step: Array) -> tuple[SarsaState, Metrics]:
        obs, action, reward, terminated, _, next_obs, _ = common.only(trajectory)
        next_action = epsilon_greedy(key, state.q[next_obs], epsilon_at(step))
        error = reward + gamma * (1 - terminated) * state.q[next_obs, next_action] - state.q[obs, action]
        q = state.q + learning_rate * error * common.indicator(state.q, obs, action)
        return SarsaState(state.spec, q, next_action), {"td_error": jnp.abs(error), "epsilon": epsilon_at(step)}

    return common.on_policy_control("sarsa", init, epsilon_at, update)
