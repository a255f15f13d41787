"""Double Q-learning (van Hasselt 2010; Sutton and Barto 2018, section 6.7)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.constructors import agent_constructor
from jaxrl.exploration import epsilon_greedy, linear_epsilon
from jaxrl.learning import tables as common
from jaxrl.types import Agent, Array, Key, Metrics, Spec, Transition


class DoubleQLearningState(NamedTuple):
    """The environment's spec, which is static, and the two tables of action values, `[2, S, A]`."""

    spec: Spec
    tables: Array

    @property
    def q(self) -> Array:
        """The mean of the two tables, `[S, A]`, by which it acts."""
        return self.tables.mean(axis=0)


@agent_constructor
def double_q_learning(
    *,
    learning_rate: float = 0.1,
    gamma: float = 0.99,
    epsilon_start: float = 1.0,
    epsilon_final: float = 0.0,
    epsilon_decay_steps: int = 10_000,
    initial_value: float = 0.0,
) -> Agent:
    """Double Q-learning with two tables, for discrete states and actions.

    A coin says which table learns; it chooses the next state's best action, and the other one values it. So no estimate
    is maximised over its own noise (Sutton and Barto 2018, equation 6.10).

    Args:
      learning_rate: step size alpha, in (0, 1].
      gamma: discount, in [0, 1].
      epsilon_start: probability of a random action at the first step, in [0, 1].
      epsilon_final: the same once it has decayed, in [0, 1].
      epsilon_decay_steps: environment steps over which epsilon falls linearly from the one to the other.
      initial_value: what the tables hold before learning.

    Returns:
      an `Agent`; its metrics are td_error (the size of the temporal-difference error) and epsilon.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.
    """
    common.check_learning("double_q_learning", learning_rate, gamma, initial_value)
    epsilon_at = linear_epsilon("double_q_learning", epsilon_start, epsilon_final, epsilon_decay_steps)

    def init(key: Key, spec: Spec) -> DoubleQLearningState:
        table = common.action_values("double_q_learning", spec, initial_value)
        return DoubleQLearningState(spec, jnp.stack([table, table]))

    def update(
        state: DoubleQLearningState, trajectory: Transition, key: Key, step: Array
    ) -> tuple[DoubleQLearningState, Metrics]:
        obs, action, reward, terminated, _, next_obs, _ = common.only(trajectory)
        coin_key, tie_key = jax.random.split(key)
        learner = jax.random.bernoulli(coin_key).astype(jnp.int32)  # which table learns; the other one judges
        best = epsilon_greedy(tie_key, state.tables[learner, next_obs], 0.0)
        target = reward + gamma * (1 - terminated) * state.tables[1 - learner, next_obs, best]
        error = target - state.tables[learner, obs, action]
        moved = jax.nn.one_hot(learner, 2)[:, None, None] * common.indicator(state.tables[0], obs, action)
        tables = state.tables + learning_rate * error * moved
        return DoubleQLearningState(state.spec, tables), {"td_error": jnp.abs(error), "epsilon": epsilon_at(step)}

    return common.off_policy_control("double_q_learning", init, epsilon_at, update)
