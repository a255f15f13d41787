"""Monte-Carlo control (Sutton and Barto 2018, section 5.4)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.exploration import linear_epsilon
from jaxrl.learning import tables as common
from jaxrl.returns import discounted_returns
from jaxrl.types import Agent, Array, Key, Metrics, Spec, Transition


class MonteCarloState(NamedTuple):
    """The spec, which is static; the action values; and where the running episode has been.

    Attributes:
      spec: the environment's.
      q: float32 `[S, A]`.
      seen: bool `[S, A]`, the pairs of state and action that the episode has visited, in earlier rollouts too.
    """

    spec: Spec
    q: Array
    seen: Array


@agent_constructor
def monte_carlo(
    *,
    learning_rate: float = 0.1,
    gamma: float = 0.99,
    epsilon_start: float = 1.0,
    epsilon_final: float = 0.0,
    epsilon_decay_steps: int = 10_000,
    initial_value: float = 0.0,
    first_visit: bool = True,
    rollout_length: int = 200,
) -> Agent:
    """On-policy Monte-Carlo control with a table, for discrete states and actions.

    Moves Q(s, a) towards the return that followed, once the episode has ended: by a constant step size, which forgets
    the policies of old (Sutton and Barto 2018, equation 6.1, in the algorithm of section 5.4). The policy stays as it
    is for a whole rollout, and steps whose episode does not end within it are left out, so it should be longer than an
    episode. A first visit is the episode's first: one in an earlier rollout is left out, and the pair's later visits
    with it. The return of a truncated episode goes on with its last state's greatest action value.

    Args:
      learning_rate: step size alpha, in (0, 1].
      gamma: discount, in [0, 1].
      epsilon_start: probability of a random action at the first step, in [0, 1].
      epsilon_final: the same once it has decayed, in [0, 1].
      epsilon_decay_steps: environment steps over which epsilon falls linearly from the one to the other.
      initial_value: what the table holds before learning.
      first_visit: whether only an episode's first visit to a pair of state and action counts; else every one does.
      rollout_length: environment steps between updates.

    Returns:
      an `Agent`; its metrics are td_error (the mean size of the errors learned from; 0 where there were none) and
      epsilon.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.
    """
    checks.integer("monte_carlo", rollout_length=rollout_length)
    common.check_learning("monte_carlo", learning_rate, gamma, initial_value)
    epsilon_at = linear_epsilon("monte_carlo", epsilon_start, epsilon_final, epsilon_decay_steps)

    def init(key: Key, spec: Spec) -> MonteCarloState:
        q = common.action_values("monte_carlo", spec, initial_value)
        return MonteCarloState(spec, q, jnp.zeros(q.shape, bool))

    act = common.act_epsilon_greedily(epsilon_at)

    def update(
        state: MonteCarloState, trajectory: Transition, key: Key, step: Array
    ) -> tuple[MonteCarloState, Metrics]:
        obs, action, reward, terminated, truncated, next_obs, _ = jax.tree.map(lambda x: x[:, 0], trajectory)
        ended = terminated | truncated
        returns = discounted_returns(reward, gamma * (1 - terminated), state.q[next_obs].max(-1), ended)
        whole = jnp.cumsum(ended[::-1])[::-1] > 0  # an end is still to come

        def learn(carry: tuple[Array, Array], step: tuple) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            q, seen = carry
            obs, action, target, whole, ended = step
            counts = whole & ~(seen[obs, action] & first_visit)
            visited = common.indicator(q, obs, action)
            error = jnp.where(counts, target - q[obs, action], 0.0)
            seen = jnp.where(ended, False, seen | (visited > 0))
            return (q + learning_rate * error * visited, seen), (jnp.abs(error), counts)

        steps = (obs, action, returns, whole, ended)
        (q, seen), (errors, counts) = jax.lax.scan(learn, (state.q, state.seen), steps)
        metrics = {"td_error": errors.sum() / jnp.maximum(counts.sum(), 1), "epsilon": epsilon_at(step)}
        return MonteCarloState(state.spec, q, seen), metrics

    return Agent(
        init, act, update, num_envs=1, rollout_length=rollout_length, name="monte_carlo",
        interrupt=lambda state, step: state._replace(seen=jnp.zeros_like(state.seen)),
    )  # fmt: skip
