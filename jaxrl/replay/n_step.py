"""From stretches of experience to what one-step and n-step learning need of them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.replay.types import Sample
from jaxrl.types import Array, PyTree


class NStep(NamedTuple):
    """Up to n steps as one; leaves `[B, ...]`.

    Attributes:
      obs: where the first step began.
      action: the first action.
      reward: the discounted sum of the rewards.
      discount: of the value of `next_obs`: gamma to the power of how many steps it were, and 0 where they terminated.
      next_obs: where the last step led.
    """

    obs: PyTree
    action: Array
    reward: Array
    discount: Array
    next_obs: PyTree


def aggregate(sample: Sample, gamma: Array | float) -> NStep:
    """R = sum_{k<m} gamma^k r_k and gamma^m, with which R + gamma^m max_a Q(s_m, a) is a target (Watkins 1989).

    m is how many of the sample's steps are valid: fewer than it holds where the episode ended, or where the next step
    has not been taken yet. A truncated episode bootstraps from its last observation like any other.

    Args:
      sample: from a replay, of length n.
      gamma: discount, in [0, 1].
    """
    steps, valid = sample.steps, sample.valid
    length = valid.shape[1]
    last = jnp.maximum(jnp.sum(valid, axis=1) - 1, 0)  # [B]; where none is valid, the weight is 0
    powers = jnp.asarray(gamma, jnp.float32) ** jnp.arange(length + 1)

    def at_last(x: Array) -> Array:
        if length == 1:
            return x[:, 0]
        return jnp.take_along_axis(x, last.reshape(-1, *(1,) * (x.ndim - 1)), axis=1)[:, 0]

    return NStep(
        obs=jax.tree.map(lambda x: x[:, 0], steps.obs),
        action=steps.action[:, 0],
        reward=jnp.sum(jnp.where(valid, steps.reward, 0.0) * powers[:-1], axis=1),
        discount=powers[1:][last] * (1.0 - at_last(steps.terminated)),
        next_obs=jax.tree.map(at_last, steps.next_obs),
    )
