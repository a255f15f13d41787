"""The example in which a maximum over estimates misleads (Sutton and Barto 2018, example 6.7)."""

from __future__ import annotations

import numpy as np

from jaxrl import checks
from jaxrl.envs.own.tabular import model_env
from jaxrl.types import Env, Model


def maximization_bias(*, num_actions: int = 10) -> Env:
    """In state A going right ends the episode with 0; going left leads to B, where all actions end it with N(-0.1, 1).

    So right is best, but some of B's many estimates will be above 0 by chance, and their maximum makes left look good.
    Every state has the same number of actions here: in A the even ones go right and the odd ones left, which leaves a
    random action at one half each, as in the book. Observations: A is 0, B is 1, the end is 2.

    Args:
      num_actions: how many actions there are, an even number.

    Raises:
      JaxrlError: if it is not an even positive number.
    """
    checks.integer("jaxrl/MaximizationBias-v0", num_actions=num_actions)
    if num_actions % 2:
        raise checks.JaxrlError(
            f"jaxrl/MaximizationBias-v0: num_actions={num_actions} is not accepted; it must be an even number"
        )
    to = np.full((3, num_actions), 2)
    to[0, 1::2] = 1
    reward = np.zeros((3, num_actions), np.float32)
    reward[1] = -0.1
    states = np.eye(3, dtype=np.float32)
    model = Model(states[to], reward, terminal=states[2] == 1, start=states[0])
    noise = np.zeros_like(reward)
    noise[1] = 1
    return model_env("jaxrl/MaximizationBias-v0", model, max_steps=100, reward_noise=noise)
