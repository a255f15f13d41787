"""A point that moves to the origin: the smallest task with continuous actions and a dense reward."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks
from jaxrl.envs import drawing
from jaxrl.types import Array, Env, Key, Outcome, Spec, box

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_SPEED = 0.1  # along each axis, in one step
NEAR = 0.01


class PointState(NamedTuple):
    """The position, float32 `[2]`, and the steps taken in this episode, int32."""

    position: Array
    time: Array


def point(*, max_steps: int = 100) -> Env:
    """A point in the plane that should come to the origin; each step costs the distance that is left after it.

    The action is the velocity, in `[-0.1, 0.1] ** 2`, clipped to that; the observation is the position, float32 `[2]`,
    which has no bounds. A step to a place less than 0.01 from the origin in both coordinates terminates. Episodes begin
    uniformly in `[-1, 1] ** 2`, once in 10,000 times that near already, and then the first step decides.

    Args:
      max_steps: steps after which an episode is truncated. The longest way takes 10.

    Raises:
      JaxrlError: if it is not a positive whole number.
    """
    id = "jaxrl/Point-v0"
    checks.integer(id, max_steps=max_steps)

    def reset(key: Key) -> tuple[PointState, Array]:
        position = jax.random.uniform(key, (2,), minval=-1, maxval=1)
        return PointState(position, jnp.int32(0)), position

    def step(key: Key, old: PointState, action: Array) -> tuple[PointState, Outcome]:
        new = PointState(old.position + jnp.clip(action, -MAX_SPEED, MAX_SPEED), old.time + 1)
        terminated = jnp.all(jnp.abs(new.position) < NEAR)
        truncated = (new.time >= max_steps) & ~terminated
        return new, Outcome(new.position, -jnp.linalg.norm(new.position), terminated, truncated)

    spec = Spec(id, box(-np.inf, np.inf, (2,)), box(-MAX_SPEED, MAX_SPEED, (2,)), max_steps)
    return Env(reset, step, spec, draw=draw)


def draw(state: PointState, axes: Axes):
    """The point and the origin, in the square that episodes begin in, or more where the point has left it."""
    position = np.asarray(state.position)
    limit = max(1.1, np.abs(position).max() + 0.1)
    drawing.rod(axes, [(-0.06, 0), (0.06, 0)], drawing.RED, 2)
    drawing.rod(axes, [(0, -0.06), (0, 0.06)], drawing.RED, 2)
    drawing.disc(axes, position, 0.04, drawing.BLUE)
    drawing.field(axes, (-limit, limit), (-limit, limit))
