"""Q-learning (Watkins 1989; Sutton and Barto 2018, section 6.5)."""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl.constructors import agent_constructor
from jaxrl.exploration import linear_epsilon
from jaxrl.learning import tables as common
from jaxrl.learning.tables import TableState
from jaxrl.types import Agent, Array, Key, Metrics, Transition


@agent_constructor
def q_learning(
    *,
    learning_rate: float = 0.1,
    gamma: float = 0.99,
    epsilon_start: float = 1.0,
    epsilon_final: float = 0.0,
    epsilon_decay_steps: int = 10_000,
    initial_value: float = 0.0,
) -> Agent:
    """Q-learning with a table, for discrete states and actions.

    Moves Q(s, a) towards r + gamma max_a' Q(s', a'), whatever action follows: it learns about the greedy policy while
    it explores (Sutton and Barto 2018, equation 6.8).

    Args:
      learning_rate: step size alpha, in (0, 1].
      gamma: discount, in [0, 1].
      epsilon_start: probability of a random action at the first step, in [0, 1].
      epsilon_final: the same once it has decayed, in [0, 1].
      epsilon_decay_steps: environment steps over which epsilon falls linearly from the one to the other.
      initial_value: what the table holds before learning; more than any return makes an agent curious.

    Returns:
      an `Agent`; its metrics are td_error (the size of the temporal-difference error) and epsilon.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> q_learning(epsilon_start=0.1, epsilon_final=0.1).name
      'q_learning'
    """
    common.check_learning("q_learning", learning_rate, gamma, initial_value)
    epsilon_at = linear_epsilon("q_learning", epsilon_start, epsilon_final, epsilon_decay_steps)

    init = common.init_table("q_learning", initial_value)

    def update(state: TableState, trajectory: Transition, key: Key, step: Array) -> tuple[TableState, Metrics]:
        obs, action, reward, terminated, _, next_obs, _ = common.only(trajectory)
        error = reward + gamma * (1 - terminated) * state.q[next_obs].max() - state.q[obs, action]
        q = state.q + learning_rate * error * common.indicator(state.q, obs, action)
        return TableState(state.spec, q), {"td_error": jnp.abs(error), "epsilon": epsilon_at(step)}

    return common.off_policy_control("q_learning", init, epsilon_at, update)
