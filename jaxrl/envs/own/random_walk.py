"""The random walk on which prediction is studied (Sutton and Barto 2018, example 7.1)."""

from __future__ import annotations

import numpy as np

from jaxrl import checks
from jaxrl.envs.own.tabular import model_env
from jaxrl.types import Env, Model


def random_walk(*, num_states: int = 19) -> Env:
    """A row of states, with an end on either side: reward -1 for stepping off the left, 1 for stepping off the right.

    Episodes begin in the middle. Actions are left and right; of a policy that tosses a coin the values rise evenly
    from -1 to 1. Observations are 0 to `num_states - 1`, and then the ends, left and right. Truncated after
    `100 * num_states` steps.

    Args:
      num_states: how many states there are, without the ends.

    Raises:
      JaxrlError: if it is not a positive whole number.
    """
    checks.integer("jaxrl/RandomWalk-v0", num_states=num_states)
    left, right = num_states, num_states + 1
    states = np.arange(num_states)
    to = np.stack([np.where(states == 0, left, states - 1), np.where(states == num_states - 1, right, states + 1)], -1)
    to = np.concatenate([to, [[left, left], [right, right]]])  # [S, A]
    reward = np.where(to == right, 1.0, np.where(to == left, -1.0, 0.0))
    reward[num_states:] = 0
    terminal = np.arange(num_states + 2) >= num_states
    start = np.eye(num_states + 2)[num_states // 2]
    model = Model(
        np.eye(num_states + 2, dtype=np.float32)[to], reward.astype(np.float32), terminal, start.astype(np.float32)
    )
    return model_env("jaxrl/RandomWalk-v0", model, max_steps=100 * num_states, action_names=("left", "right"))
