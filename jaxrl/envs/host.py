"""Stepping environments that are on the host: rows of them, as one vector, and whole episodes in them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import Array, Box, HostOutcome, HostVector, Key, PyTree, Spec

Act = Callable[[PyTree, np.ndarray, int], tuple[Array, PyTree]]


def draw_seeds(key: Key, number: int) -> Array:
    """Seeds of environments, `[number]`, whole numbers below 2**31."""
    return jax.random.bits(key, (number,), jnp.uint32) >> 1


def step(vector: HostVector, spec: Spec, action: Array, shape: tuple[int, int]) -> HostOutcome:
    """Waits for the actions, and takes a step; `[R, N, ...]` in and out, but for rows of padding in the actions."""
    actions, space = np.asarray(action)[: shape[0]], spec.action_space
    if isinstance(space, Box):  # a row that diverged is marked by its update, and must not end the others' run
        actions = np.where(np.isfinite(actions), actions, np.clip(0, space.low, space.high))
    outcome = vector.step(actions.reshape(-1, *actions.shape[2:]))
    outcome = outcome._replace(truncated=outcome.truncated & ~outcome.terminated)  # as in the compiled loop
    return HostOutcome(*(x.reshape(*shape, *x.shape[1:]) for x in outcome))


def play(vector: HostVector, spec: Spec, act: Act, memory: PyTree, seeds: np.ndarray, max_steps: int) -> np.ndarray:
    """The returns of whole episodes, one in each environment, until the last of them has ended.

    Args:
      vector: the environments.
      spec: theirs.
      act: `act(memory, obs, t) -> (actions, memory)`, leaves `[R, E, ...]`.
      memory: the first.
      seeds: of the environments, `[R, E]`.
      max_steps: a longer episode counts with its return so far.

    Returns:
      float32 `[R, E]`.
    """
    obs = vector.reset(seeds.reshape(-1).tolist())
    obs = obs.reshape(*seeds.shape, *obs.shape[1:])
    returns, finished = np.zeros(seeds.shape), np.zeros(seeds.shape, bool)
    for t in range(max_steps):
        action, memory = act(memory, obs, t)
        outcome = step(vector, spec, action, seeds.shape)
        obs = outcome.obs
        returns = returns + np.where(finished, 0, outcome.reward)
        finished = finished | outcome.terminated | outcome.truncated
        if finished.all():
            break
    return returns.astype(np.float32)
