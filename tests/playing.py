"""Stepping environments: one through given actions, or through episodes, which begin anew where one ended."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import Env, Outcome


class Played(NamedTuple):
    """Steps of an environment, `[T, ...]`.

    Attributes:
      state: before the step.
      obs: what was acted on.
      action: what was done.
      outcome: what came of it.
      new_obs: what to act on next: `outcome.obs`, or where an episode ended the first observation of another one.
    """

    state: Any
    obs: Any
    action: Any
    outcome: Outcome
    new_obs: Any


def play(env: Env, state: Any, actions: Any) -> Outcome:
    """Outcomes of the actions from a state, `[T]`, whatever ends on the way."""

    def body(state, action):
        return env.step(jax.random.key(1), state, action)

    compiled = jax.jit(lambda: jax.lax.scan(body, state, jnp.asarray(actions))[1])
    return jax.tree.map(np.asarray, compiled())


def rollout(env: Env, key: jax.Array, num_steps: int, act: Callable | None = None) -> Played:
    """So many steps of one environment, with a fresh initial state where an episode ended, as the loop draws them.

    To be traced. `act(key, obs, t) -> action` is random unless it is given.
    """

    def body(carry, t):
        ended, *going_on = carry
        act_key, step_key, reset_key = jax.random.split(jax.random.fold_in(key, t), 3)
        state, obs = jax.tree.map(lambda x, y: jnp.where(ended, x, y), env.reset(reset_key), tuple(going_on))
        action = env.spec.action_space.sample(act_key) if act is None else act(act_key, obs, t)
        new, outcome = env.step(step_key, state, action)
        return (outcome.terminated | outcome.truncated, new, outcome.obs), Played(state, obs, action, outcome, obs)

    # The first step begins an episode, too, so that `reset` is compiled once; one step more shows where the last led.
    nothing = jax.tree.map(lambda x: jax.lax.full(x.shape, 0, x.dtype), jax.eval_shape(env.reset, key))
    played = jax.lax.scan(body, (jnp.bool_(True), *nothing), jnp.arange(num_steps + 1))[1]
    return jax.tree.map(lambda x: x[:-1], played)._replace(new_obs=jax.tree.map(lambda x: x[1:], played.new_obs))


def run(env: Env, actions: Any, seed: int = 0) -> Played:
    """`rollout` with the actions `[T, ...]`, compiled; NumPy arrays."""
    actions = jnp.asarray(actions)
    played = lambda key: rollout(env, key, len(actions), lambda key, obs, t: actions[t])  # noqa: E731
    compiled = jax.jit(played)
    return jax.tree.map(np.asarray, compiled(jax.random.key(seed)))
