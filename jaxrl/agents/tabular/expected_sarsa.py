"""Expected Sarsa (van Seijen et al. 2009; Sutton and Barto 2018, section 6.6)."""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl.constructors import agent_constructor
from jaxrl.exploration import epsilon_greedy_probabilities, linear_epsilon
from jaxrl.learning import tables as common
from jaxrl.learning.tables import TableState
from jaxrl.types import Agent, Array, Key, Metrics, Transition


@agent_constructor
def expected_sarsa(
    *,
    learning_rate: float = 0.1,
    gamma: float = 0.99,
    epsilon_start: float = 1.0,
    epsilon_final: float = 0.0,
    epsilon_decay_steps: int = 10_000,
    initial_value: float = 0.0,
) -> Agent:
    """Expected Sarsa with a table, for discrete states and actions.

    Moves Q(s, a) towards r + gamma sum_a' pi(a' | s') Q(s', a'): Sarsa without the chance of the next action (Sutton
    and Barto 2018, equation 6.9).

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
    common.check_learning("expected_sarsa", learning_rate, gamma, initial_value)
    epsilon_at = linear_epsilon("expected_sarsa", epsilon_start, epsilon_final, epsilon_decay_steps)

    init = common.init_table("expected_sarsa", initial_value)

    def update(state: TableState, trajectory: Transition, key: Key, step: Array) -> tuple[TableState, Metrics]:
        obs, action, reward, terminated, _, next_obs, _ = common.only(trajectory)
        policy = epsilon_greedy_probabilities(state.q[next_obs], epsilon_at(step))
        error = reward + gamma * (1 - terminated) * jnp.sum(policy * state.q[next_obs]) - state.q[obs, action]
        q = state.q + learning_rate * error * common.indicator(state.q, obs, action)
        return TableState(state.spec, q), {"td_error": jnp.abs(error), "epsilon": epsilon_at(step)}

    return common.off_policy_control("expected_sarsa", init, epsilon_at, update)
