"""Environments that are given whole, as arrays: a `Model`, and the `Env` that plays it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks
from jaxrl.types import Array, Discrete, Env, Key, Model, Outcome, Spec


class TabularState(NamedTuple):
    """The model's state, and the steps taken in this episode; both int32."""

    state: Array
    time: Array


def model_env(
    id: str,
    model: Model,
    *,
    max_steps: int,
    reward_noise: np.ndarray | None = None,
    layout: tuple[str, ...] = (),
    action_names: tuple[str, ...] = (),
) -> Env:
    """The environment of a model: observations are its states, `0 .. S - 1`.

    An episode begins in a state drawn from `model.start`, terminates in one that `model.terminal` marks, and is
    truncated after `max_steps`.

    Args:
      id: the environment's id.
      model: see `jaxrl.types.Model`.
      max_steps: the time limit, in steps.
      reward_noise: standard deviation of the normal noise on each reward, `[S, A]`; None for none.
      layout: see `jaxrl.types.Spec`.
      action_names: see `jaxrl.types.Spec`.

    Raises:
      JaxrlError: if `max_steps` is not a positive whole number.
    """
    checks.integer(id, max_steps=max_steps)
    num_states, num_actions, _ = model.transition.shape

    def reset(key: Key) -> tuple[TabularState, Array]:
        state = _draw(key, model.start)
        return TabularState(state, jnp.int32(0)), state

    def step(key: Key, old: TabularState, action: Array) -> tuple[TabularState, Outcome]:
        step_key, noise_key = jax.random.split(key)
        state, time = _draw(step_key, model.transition, (old.state, action)), old.time + 1
        terminated = jnp.asarray(model.terminal)[state]
        truncated = (time >= max_steps) & ~terminated
        reward = jnp.asarray(model.reward)[old.state, action]
        if reward_noise is not None:
            reward = reward + jnp.asarray(reward_noise)[old.state, action] * jax.random.normal(noise_key)
        return TabularState(state, time), Outcome(state, reward, terminated, truncated)

    spec = Spec(id, Discrete(num_states), Discrete(num_actions), max_steps, layout=layout, action_names=action_names)
    return Env(reset, step, spec, model)


def _draw(key: Key, probabilities: Array | np.ndarray, index: tuple[Array, ...] = ()) -> Array:
    """A state, int32, from the distribution at `probabilities[index]`; without chance where none is left to it."""
    if np.all(probabilities.max(-1) == 1):
        return jnp.asarray(probabilities.argmax(-1).astype(np.int32))[index]
    below = np.cumsum(probabilities, axis=-1, dtype=np.float64)
    below = np.where(below > 1 - 1e-6, 1, below).astype(np.float32)  # whatever rounding did: some state is drawn
    return jnp.sum(jnp.asarray(below)[index] <= jax.random.uniform(key), dtype=jnp.int32)
