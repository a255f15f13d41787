"""Sarsa(lambda) with eligibility traces (Rummery and Niranjan 1994; Singh and Sutton 1996)."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.exploration import epsilon_greedy, linear_epsilon
from jaxrl.learning import tables as common
from jaxrl.types import Agent, Array, Key, Metrics, Spec, Transition

TRACES = ("accumulating", "replacing")


class SarsaLambdaState(NamedTuple):
    """The environment's spec, which is static, the action values `q`, `[S, A]`, their traces, and the next action."""

    spec: Spec
    q: Array
    trace: Array
    next_action: Array


@agent_constructor
def sarsa_lambda(
    *,
    lambda_: float = 0.9,
    traces: str = "replacing",
    learning_rate: float = 0.1,
    gamma: float = 0.99,
    epsilon_start: float = 1.0,
    epsilon_final: float = 0.0,
    epsilon_decay_steps: int = 10_000,
    initial_value: float = 0.0,
) -> Agent:
    """Sarsa(lambda) with a table, for discrete states and actions.

    Every pair (s, a) has a trace, which fades by gamma lambda a step and rises where it is visited; each temporal-
    difference error of Sarsa moves all pairs by their traces (Sutton and Barto 2018, section 12.7). A new episode
    begins without traces.

    Args:
      lambda_: how slowly traces fade, in [0, 1]; 0 is Sarsa.
      traces: what a visit does to a trace: accumulating adds 1 to it, replacing sets it to 1.
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
    checks.number("sarsa_lambda", 0, 1, lambda_=lambda_)
    checks.one_of("sarsa_lambda", TRACES, traces=traces)
    common.check_learning("sarsa_lambda", learning_rate, gamma, initial_value)
    epsilon_at = linear_epsilon("sarsa_lambda", epsilon_start, epsilon_final, epsilon_decay_steps)

    def init(key: Key, spec: Spec) -> SarsaLambdaState:
        q = common.action_values("sarsa_lambda", spec, initial_value)
        return SarsaLambdaState(spec, q, jnp.zeros_like(q), jnp.int32(0))

    def update(
        state: SarsaLambdaState, trajectory: Transition, key: Key, step: Array
    ) -> tuple[SarsaLambdaState, Metrics]:
        obs, action, reward, terminated, truncated, next_obs, _ = common.only(trajectory)
        next_action = epsilon_greedy(key, state.q[next_obs], epsilon_at(step))
        error = reward + gamma * (1 - terminated) * state.q[next_obs, next_action] - state.q[obs, action]
        visited = common.indicator(state.q, obs, action)
        trace = state.trace + visited if traces == "accumulating" else jnp.maximum(state.trace, visited)
        q = state.q + learning_rate * error * trace
        trace = jnp.where(terminated | truncated, 0, gamma * lambda_ * trace)
        metrics = {"td_error": jnp.abs(error), "epsilon": epsilon_at(step)}
        return SarsaLambdaState(state.spec, q, trace, next_action), metrics

    def interrupt(state: SarsaLambdaState, step: Array) -> SarsaLambdaState:
        return state._replace(trace=jnp.zeros_like(state.trace))

    return common.on_policy_control("sarsa_lambda", init, epsilon_at, update, interrupt=interrupt)
