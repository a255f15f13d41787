"""TD(lambda): prediction with linear features (Sutton 1988; Sutton and Barto 2018, sections 9.4 and 12.2)."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.learning import tables as common
from jaxrl.types import Agent, Array, Key, Metrics, Spec, Transition


class TDState(NamedTuple):
    """The environment's spec, which is static, and three vectors `[F]`.

    They are the weights, of which the value of a state is the product with its features, the eligibility trace, and
    what an offline agent will add to the weights when the episode ends.
    """

    spec: Spec
    weights: Array
    trace: Array
    pending: Array


@agent_constructor
def td(
    *,
    lambda_: float = 0.0,
    learning_rate: float = 0.1,
    gamma: float = 0.99,
    online: bool = True,
    features: common.Features | None = None,
    policy: common.Policy | None = None,
) -> Agent:
    """TD(lambda): learns the values of a policy that it does not change, as a linear function of features.

    Its update is w + alpha (r + gamma w x(s') - w x(s)) z, with the trace z = gamma lambda z + x(s), which begins anew
    in each episode (Sutton and Barto 2018, equations 12.5 to 12.7).

    Args:
      lambda_: how slowly traces fade, in [0, 1]: 0 learns from the next state's value alone, 1 from whole returns.
      learning_rate: step size alpha, > 0.
      gamma: discount, in [0, 1].
      online: whether weights move at every step; else the changes of an episode are added up and made at its end, as
        in Sutton (1988), which with lambda_ = 1 is Monte Carlo.
      features: x, from an observation to a vector `[F]`; one-hot for discrete states unless given.
      policy: from a key and an observation to an action; uniformly random unless given.

    Returns:
      an `Agent`; its metric is td_error (the size of the temporal-difference error).

    Raises:
      JaxrlError: where an argument is out of its range.
    """
    checks.number("td", 0, 1, lambda_=lambda_, gamma=gamma)
    checks.number("td", 0, open_low=True, learning_rate=learning_rate)

    def init(key: Key, spec: Spec) -> TDState:
        zeros = common.no_weights(spec, features)
        return TDState(spec, zeros, zeros, zeros)

    def update(state: TDState, trajectory: Transition, key: Key, step: Array) -> tuple[TDState, Metrics]:
        obs, _, reward, terminated, truncated, next_obs, _ = common.only(trajectory)
        x, ended = common.features_of(state.spec, features), terminated | truncated
        weights, trace = state.weights, state.trace + x(obs)
        error = reward + gamma * (1 - terminated) * (weights @ x(next_obs)) - weights @ x(obs)
        change = state.pending + learning_rate * error * trace
        now = ended | online
        weights, pending = weights + jnp.where(now, change, 0), jnp.where(now, 0, change)
        trace = jnp.where(ended, 0, gamma * lambda_ * trace)
        return TDState(state.spec, weights, trace, pending), {"td_error": jnp.abs(error)}

    def interrupt(state: TDState, step: Array) -> TDState:
        nothing = jnp.zeros_like(state.trace)
        return state._replace(weights=state.weights + state.pending, trace=nothing, pending=nothing)

    return common.prediction("td", init, policy, update, interrupt)
