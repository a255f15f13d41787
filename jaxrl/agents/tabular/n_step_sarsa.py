"""n-step Sarsa (Sutton and Barto 2018, section 7.2)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.exploration import epsilon_greedy, linear_epsilon
from jaxrl.learning import tables as common
from jaxrl.types import Agent, Array, Key, Metrics, Spec, Transition


class NStepSarsaState(NamedTuple):
    """The environment's spec, which is static, the action values `q`, `[S, A]`, the next action and the last n steps.

    A step in the window is `(obs, action)`.
    """

    spec: Spec
    q: Array
    next_action: Array
    window: common.Window


@agent_constructor
def n_step_sarsa(
    *,
    n: int = 4,
    learning_rate: float = 0.1,
    gamma: float = 0.99,
    epsilon_start: float = 1.0,
    epsilon_final: float = 0.0,
    epsilon_decay_steps: int = 10_000,
    initial_value: float = 0.0,
) -> Agent:
    """n-step Sarsa with a table, for discrete states and actions.

    Moves Q(s_t, a_t) towards r_t + ... + gamma^(n-1) r_(t+n-1) + gamma^n Q(s_(t+n), a_(t+n)), n steps later (Sutton and
    Barto 2018, equations 7.4 and 7.5); what is left in the window when an episode ends is learned then, oldest first.

    Args:
      n: steps of reward before the bootstrap, at least 1, which is Sarsa.
      learning_rate: step size alpha, in (0, 1].
      gamma: discount, in [0, 1].
      epsilon_start: probability of a random action at the first step, in [0, 1].
      epsilon_final: the same once it has decayed, in [0, 1].
      epsilon_decay_steps: environment steps over which epsilon falls linearly from the one to the other.
      initial_value: what the table holds before learning.

    Returns:
      an `Agent`; its metrics are td_error (the mean size of the errors learned from; 0 where there were none) and
      epsilon.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.
    """
    checks.integer("n_step_sarsa", n=n)
    common.check_learning("n_step_sarsa", learning_rate, gamma, initial_value)
    epsilon_at = linear_epsilon("n_step_sarsa", epsilon_start, epsilon_final, epsilon_decay_steps)

    def init(key: Key, spec: Spec) -> NStepSarsaState:
        q = common.action_values("n_step_sarsa", spec, initial_value)
        return NStepSarsaState(spec, q, jnp.int32(0), common.empty_window(n, (jnp.int32(0), jnp.int32(0))))

    def update(
        state: NStepSarsaState, trajectory: Transition, key: Key, step: Array
    ) -> tuple[NStepSarsaState, Metrics]:
        obs, action, reward, terminated, truncated, next_obs, _ = common.only(trajectory)
        next_action = epsilon_greedy(key, state.q[next_obs], epsilon_at(step))
        bootstrap = (1 - terminated) * state.q[next_obs, next_action]
        window = common.push(state.window, (obs, action), reward)
        returns, due, window = common.due_returns(window, gamma, bootstrap, terminated | truncated)

        def learn(q: Array, step: tuple) -> tuple[Array, Array]:
            (obs, action), target, due = step
            error = jnp.where(due, target - q[obs, action], 0.0)
            return q + learning_rate * error * common.indicator(q, obs, action), jnp.abs(error)

        q, errors = jax.lax.scan(learn, state.q, (window.steps, returns, due))
        metrics = {"td_error": errors.sum() / jnp.maximum(due.sum(), 1), "epsilon": epsilon_at(step)}
        return NStepSarsaState(state.spec, q, next_action, window), metrics

    return common.on_policy_control("n_step_sarsa", init, epsilon_at, update, interrupt=common.forget_window)
