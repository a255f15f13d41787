"""Probe environments: each is so small that its values are known, and an agent that fails it has one fault.

The idea of probing an agent with tasks of rising difficulty is Jones's ("Debugging RL, Without the Agonizing Pain",
2021). Observations are float32 of shape (1,), actions are two, and where nothing is said they change nothing.

- `jaxrl/Probe-value-v0`: 1 step, observation 1, reward 1. V(1) = 1. Fails: the value's loss or its optimiser.
- `jaxrl/Probe-observation-v0`: 1 step, the observation is 1 or -1 at random and so is the reward. V(obs) = obs.
  Fails: the observation does not reach the network.
- `jaxrl/Probe-discount-v0`: 2 steps, observations 0 then 1, rewards 0 then 1. V(0) = gamma, V(1) = 1. Fails: the
  discount, or the bootstrap from the successor.
- `jaxrl/Probe-action-v0`: 1 step, observation 1, reward 1 for action 1 and -1 for action 0. Fails: the policy's loss,
  the advantage or its sign.
- `jaxrl/Probe-policy-v0`: 1 step, the observation is 1 or -1 at random, reward 1 where the action (1: positive, 0:
  negative) has its sign and else -1. Fails: observations, actions and rewards out of step in a batch.
- `jaxrl/Probe-truncation-v0`: 5 steps, observation 1, reward 1, then truncated. V(1) = 1 / (1 - gamma). Fails: a time
  limit is taken for termination, which finds a value of less than 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.checks import JaxrlError
from jaxrl.types import Array, Discrete, Env, Key, Outcome, Space, Spec, box

TWO_ACTIONS = Discrete(2)
TORQUE = box(-1, 1, (1,))


class ProbeState(NamedTuple):
    """What is observed, float32 of shape (1,), and the steps taken in this episode, int32."""

    obs: Array
    time: Array


def probe_value() -> Env:
    """One step, observation 1, reward 1: the value is 1."""
    return _probe("jaxrl/Probe-value-v0", TWO_ACTIONS, _one, lambda obs, time, action: 1.0)


def probe_observation() -> Env:
    """One step, the observation 1 or -1 at random, and the reward is the observation: so is the value."""
    return _probe("jaxrl/Probe-observation-v0", TWO_ACTIONS, _sign, lambda obs, time, action: obs)


def probe_discount() -> Env:
    """Two steps, observation 0 and then 1, reward 1 at the end: the values are gamma and 1."""
    return _probe("jaxrl/Probe-discount-v0", TWO_ACTIONS, _zero, lambda obs, time, action: time, _one, num_steps=2)


def probe_action(*, continuous: bool = False) -> Env:
    """One step, observation 1; the best action's return is 1, or 0 with `continuous`.

    Args:
      continuous: False for reward 1 for action 1 and -1 for action 0; True for actions in `[-1, 1]` and reward
        `-(action - 0.5) ** 2`.
    """
    return _aimed("jaxrl/Probe-action-v0", continuous, _one)


def probe_policy(*, continuous: bool = False) -> Env:
    """One step, the observation 1 or -1 at random; the best policy's return is 1, or 0 with `continuous`.

    Args:
      continuous: False for reward 1 where the action is 1 for observation 1 or 0 for observation -1, and else -1;
        True for actions in `[-1, 1]` and reward `-(action - 0.5 * obs) ** 2`.
    """
    return _aimed("jaxrl/Probe-policy-v0", continuous, _sign)


def probe_truncation() -> Env:
    """Observation 1 and reward 1 for ever, but truncated after 5 steps: the value is `1 / (1 - gamma)`.

    The steps look alike, so an agent that takes the time limit for a terminal state solves
    `V = 1 + 0.8 * gamma * V` and finds less than 5.
    """
    id = "jaxrl/Probe-truncation-v0"
    return _probe(id, TWO_ACTIONS, _one, lambda obs, time, action: 1.0, num_steps=5, truncates=True)


PROBES: dict[str, Callable[..., Env]] = {
    "jaxrl/Probe-value-v0": probe_value,
    "jaxrl/Probe-observation-v0": probe_observation,
    "jaxrl/Probe-discount-v0": probe_discount,
    "jaxrl/Probe-action-v0": probe_action,
    "jaxrl/Probe-policy-v0": probe_policy,
    "jaxrl/Probe-truncation-v0": probe_truncation,
}


def _probe(
    id: str,
    action_space: Space,
    first_obs: Callable[[Key], Array],
    reward: Callable[[Array, Array, Array], Array | float],
    later_obs: Callable[[Key], Array] | None = None,
    num_steps: int = 1,
    truncates: bool = False,
) -> Env:
    """An environment whose episodes have `num_steps` steps.

    Args:
      id: the environment's id.
      action_space: its actions.
      first_obs: `first_obs(key)`, the number observed first.
      reward: `reward(obs, time, action)`, from the number observed, the steps taken before and the action.
      later_obs: like `first_obs`, for what is observed after that; None for the first one again.
      num_steps: an episode's length.
      truncates: whether the last step truncates; else it terminates.
    """

    def reset(key: Key) -> tuple[ProbeState, Array]:
        obs = jnp.reshape(first_obs(key), (1,))
        return ProbeState(obs, jnp.int32(0)), obs

    def step(key: Key, state: ProbeState, action: Array) -> tuple[ProbeState, Outcome]:
        gain = jnp.asarray(reward(state.obs[0], state.time, action), jnp.float32)
        obs = state.obs if later_obs is None else jnp.reshape(later_obs(key), (1,))
        ended = state.time + 1 >= num_steps
        return ProbeState(obs, state.time + 1), Outcome(obs, gain, ended & (not truncates), ended & truncates)

    return Env(reset, step, Spec(id, box(-1, 1, (1,)), action_space, num_steps))


def _aimed(id: str, continuous: bool, first_obs: Callable[[Key], Array]) -> Env:
    """One step, in which the action should be 1 or 0, as the observation's sign says, or half the observation."""
    if not isinstance(continuous, bool):
        raise JaxrlError(f"{id}: continuous={continuous!r} is not accepted; it must be True or False")
    if continuous:
        return _probe(id, TORQUE, first_obs, lambda obs, time, action: -((action[0] - 0.5 * obs) ** 2))
    return _probe(
        id, TWO_ACTIONS, first_obs, lambda obs, time, action: jnp.where((action == 1) == (obs > 0), 1.0, -1.0)
    )


def _zero(key: Key) -> Array:
    return jnp.float32(0)


def _one(key: Key) -> Array:
    return jnp.float32(1)


def _sign(key: Key) -> Array:
    return jnp.where(jax.random.bernoulli(key), jnp.float32(1), jnp.float32(-1))
