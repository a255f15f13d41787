"""A point that moves to where it is wanted: the smallest task with goals and continuous actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs import drawing
from jaxrl.envs.own.goals import goal_at_the_end
from jaxrl.types import Array, Env, Key, Outcome, Spec, box

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_SPEED = 0.1  # along each axis, in one step
RADIUS = 0.05
MAX_STEPS = 50


class PointReachState(NamedTuple):
    """The position and the one wanted, both float32 `[2]`, and the steps taken in this episode, int32."""

    position: Array
    wanted: Array
    time: Array


def point_reach() -> Env:
    """A point in the square `[-1, 1] ** 2`: -1 a step until it is within 0.05 of the position wanted.

    The step that gets there has reward 0 and terminates. Truncated after 50 steps; no way takes more than 20. The
    action is the velocity, in `[-0.1, 0.1] ** 2`, clipped to that; the position is clipped to the square. Observations
    are float32 `[4]`, the position and then the one wanted. Both are drawn uniformly; where they come out within 0.05
    of each other, the one wanted moves by 1 along both axes, towards the other side, so no episode begins solved.

    Of the levels of `discretize_actions` it takes 4 or more to stop within 0.05 of every goal. With 3, steps of 0.1, a
    fifth of the goals lie between the places that a point comes to, unless it first runs into a wall.
    """

    def reset(key: Key) -> tuple[PointReachState, Array]:
        position, wanted = jax.random.uniform(key, (2, 2), minval=-1, maxval=1)
        across = jnp.where(wanted > 0, wanted - 1, wanted + 1)
        wanted = jnp.where(GOAL.reward(position, wanted)[1], across, wanted)
        return PointReachState(position, wanted, jnp.int32(0)), jnp.concatenate([position, wanted])

    def step(key: Key, old: PointReachState, action: Array) -> tuple[PointReachState, Outcome]:
        velocity = jnp.clip(action, -MAX_SPEED, MAX_SPEED)
        new = PointReachState(jnp.clip(old.position + velocity, -1, 1), old.wanted, old.time + 1)
        reward, terminated = GOAL.reward(new.position, new.wanted)
        truncated = (new.time >= MAX_STEPS) & ~terminated
        return new, Outcome(jnp.concatenate([new.position, new.wanted]), reward, terminated, truncated)

    spec = Spec("jaxrl/PointReach-v0", box(-1, 1, (4,)), box(-MAX_SPEED, MAX_SPEED, (2,)), MAX_STEPS, goal=GOAL)
    return Env(reset, step, spec, draw=draw)


def draw(state: PointReachState, axes: Axes):
    """The point and, of its true size, the disc that it should come to, in the square."""
    drawing.disc(axes, np.asarray(state.wanted), RADIUS, drawing.RED)
    drawing.disc(axes, np.asarray(state.position), 0.03, drawing.BLUE)
    drawing.field(axes, (-1.1, 1.1), (-1.1, 1.1))


GOAL = goal_at_the_end(lambda position, wanted: jnp.linalg.norm(position - wanted, axis=-1) <= RADIUS)
