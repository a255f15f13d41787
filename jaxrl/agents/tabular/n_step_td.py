"""n-step temporal differences: prediction with linear features (Sutton and Barto 2018, sections 7.1 and 9.4)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.learning import tables as common
from jaxrl.types import Agent, Array, Key, Metrics, Spec, Transition


class NStepTDState(NamedTuple):
    """The environment's spec, which is static, the weights `[F]`, and the last n steps, each its features `[F]`."""

    spec: Spec
    weights: Array
    window: common.Window


@agent_constructor
def n_step_td(
    *,
    n: int = 4,
    learning_rate: float = 0.1,
    gamma: float = 0.99,
    features: common.Features | None = None,
    policy: common.Policy | None = None,
) -> Agent:
    """n-step TD: learns the values of a policy that it does not change, as a linear function of features.

    Moves the value of s_t towards n rewards and the value of s_(t+n), n steps later (Sutton and Barto 2018, equations
    7.1 and 9.15); what is left in the window when an episode ends is learned then, oldest first.

    Args:
      n: steps of reward before the bootstrap, at least 1, which is TD(0).
      learning_rate: step size alpha, > 0.
      gamma: discount, in [0, 1].
      features: from an observation to a vector `[F]`; one-hot for discrete states unless given.
      policy: from a key and an observation to an action; uniformly random unless given.

    Returns:
      an `Agent`; its metric is td_error (the mean size of the errors learned from; 0 where there were none).

    Raises:
      JaxrlError: where an argument is out of its range.
    """
    checks.integer("n_step_td", n=n)
    checks.number("n_step_td", 0, 1, gamma=gamma)
    checks.number("n_step_td", 0, open_low=True, learning_rate=learning_rate)

    def init(key: Key, spec: Spec) -> NStepTDState:
        zeros = common.no_weights(spec, features)
        return NStepTDState(spec, zeros, common.empty_window(n, zeros))

    def update(state: NStepTDState, trajectory: Transition, key: Key, step: Array) -> tuple[NStepTDState, Metrics]:
        obs, _, reward, terminated, truncated, next_obs, _ = common.only(trajectory)
        x = common.features_of(state.spec, features)
        bootstrap = (1 - terminated) * (state.weights @ x(next_obs))
        window = common.push(state.window, x(obs), reward)
        returns, due, window = common.due_returns(window, gamma, bootstrap, terminated | truncated)

        def learn(weights: Array, step: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            x, target, due = step
            error = jnp.where(due, target - weights @ x, 0.0)
            return weights + learning_rate * error * x, jnp.abs(error)

        weights, errors = jax.lax.scan(learn, state.weights, (window.steps, returns, due))
        return NStepTDState(state.spec, weights, window), {"td_error": errors.sum() / jnp.maximum(due.sum(), 1)}

    return common.prediction("n_step_td", init, policy, update, common.forget_window)
