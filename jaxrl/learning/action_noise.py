"""Noise on the actions of a deterministic policy, which has no other way to explore."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from jaxrl import checks
from jaxrl.exploration import gaussian, ornstein_uhlenbeck
from jaxrl.types import Array, Key, PyTree, Spec

NOISES = ("gaussian", "ornstein_uhlenbeck")
SCHEDULES = ("linear", "exponential")
# `init_memory` does not know the environment, so the memory of Ornstein-Uhlenbeck noise has a fixed width.
MAX_ACTION_SIZE = 64


class ActionNoise(NamedTuple):
    """Three functions.

    Attributes:
      init_memory: `init_memory(num_envs) -> memory`, what the noise carries from step to step.
      add: `add(key, action, memory, step) -> (action, memory)`; actions are `[N, A]`, of the order of 1, not clipped.
      scale: `scale(step)`, the standard deviation at an environment step.
    """

    init_memory: Callable[[int], PyTree]
    add: Callable[[Key, Array, PyTree, Array], tuple[Array, PyTree]]
    scale: Callable[[Array], Array | float]


def make_action_noise(
    owner: str,
    noise: str,
    scale: Array | float,
    final: Array | float,
    decay_steps: int,
    schedule: str = "linear",
    theta: Array | float = 0.15,
) -> ActionNoise:
    """Noise by its name, whose standard deviation may decay.

    Args:
      owner: the agent, for the error's text.
      noise: gaussian, drawn anew at each step, or ornstein_uhlenbeck, which wanders and starts from 0 in each episode.
      scale: standard deviation at the first step, >= 0; that of Ornstein-Uhlenbeck noise is reached after some steps
        of an episode.
      final: the same once it has decayed, >= 0; above 0 where the schedule is exponential.
      decay_steps: environment steps over which it goes from the one to the other; 0 keeps it constant.
      schedule: linear, or exponential: at each step by the same factor.
      theta: which part of Ornstein-Uhlenbeck noise is forgotten in each step, in (0, 1].

    Raises:
      JaxrlError: where an argument is out of its range.
    """
    checks.one_of(owner, NOISES, noise=noise)
    checks.one_of(owner, SCHEDULES, noise_schedule=schedule)
    exponential = schedule == "exponential"
    checks.number(owner, 0, open_low=exponential, noise_scale=scale, noise_final=final)
    checks.number(owner, 0, 1, open_low=True, noise_theta=theta)
    checks.integer(owner, 0, noise_decay_steps=decay_steps)

    def scale_at(step: Array) -> Array | float:
        if decay_steps == 0:
            return scale
        done = jnp.minimum(step / decay_steps, 1.0)
        return scale * (final / scale) ** done if exponential else scale + done * (final - scale)

    def init_memory(num_envs: int) -> PyTree:
        return jnp.zeros((num_envs, MAX_ACTION_SIZE)) if noise == "ornstein_uhlenbeck" else ()

    def add(key: Key, action: Array, memory: PyTree, step: Array) -> tuple[Array, PyTree]:
        if noise == "gaussian":
            return gaussian(key, action, scale_at(step)), memory
        size = action.shape[1]
        wander = ornstein_uhlenbeck(key, memory[:, :size], theta)
        return action + scale_at(step) * wander, memory.at[:, :size].set(wander)

    return ActionNoise(init_memory, add, scale_at)


def check_noise(owner: str, spec: Spec, noise: str):
    """Checks that the noise's memory is wide enough for an environment's actions.

    Raises:
      JaxrlError: if it is not.
    """
    if noise == "ornstein_uhlenbeck" and spec.action_space.shape[0] > MAX_ACTION_SIZE:
        raise checks.JaxrlError(
            f"{owner}: noise='ornstein_uhlenbeck' is not accepted on {spec.id}, whose actions have "
            f"{spec.action_space.shape[0]} numbers; with more than {MAX_ACTION_SIZE} it must be 'gaussian'"
        )
