"""An arm of two links whose tip should come to a target: and stay there, or with nothing to go by until it arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs import drawing
from jaxrl.envs.own.goals import goal_at_the_end
from jaxrl.types import Array, Env, Key, Outcome, Spec, box

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIELD = 400.0  # the field's side; the arm's base is in its middle
BASE = (200.0, 200.0)
LINK = 100.0
DT = 0.1
TARGET = (250.0, 303.0)  # of the easy arm
RADIUS = 15.0
HOLD = 50  # steps in a row on target, and one more ends the episode
SCALE = 200.0  # what the lengths in observations and rewards are divided by
MAX_STEPS = 300
MAX_REACH_STEPS = 60


class ArmState(NamedTuple):
    """Where the arm and its target are.

    Attributes:
      angles: of the two links against the field's x-axis, radians, counter-clockwise; float32 `[2]`.
      target: float32 `[2]`.
      held: for how many steps in a row the tip has been on target, int32; it is not observed.
      time: the steps taken in this episode, int32.
    """

    angles: Array
    target: Array
    held: Array
    time: Array


def arm_easy() -> Env:
    """An arm of two links, whose tip should come to a target that is always at (250, 303), and stay there.

    The base is in the middle, (200, 200), of a field of 400 by 400, and each link is 100 long. Actions are the speeds
    of the two joints, in `[-1, 1] ** 2`, clipped to that: the angles, each measured against the field, change by speed
    times 0.1. With `d` the distance from tip to target after the step, the reward is `-d / 200`, 1 more where
    `d < 15`, and 10 more once that has held for more than 50 steps in a row, which terminates; leaving the target sets
    the count back to 0. Truncated after 300 steps. Episodes begin with both angles uniform in `[0, 2 pi)`.

    Observations are float32 `[7]`: 1 where the tip is on target and else 0, then where elbow, tip and base are as seen
    from the target, `(x, y) / 200` each. How long the tip has been on target is not among them.
    """
    return _arm("jaxrl/Arm-easy-v0", lambda key: jnp.array(TARGET, jnp.float32))


def arm_hard() -> Env:
    """The arm of `arm_easy` with another target in each episode, which the tip can reach wherever it is.

    It is drawn uniformly in the field, and clipped to `[100, 300]` in each coordinate: three of four targets are on the
    edge of that square.
    """
    return _arm(
        "jaxrl/Arm-hard-v0", lambda key: jnp.clip(jax.random.uniform(key, (2,), maxval=FIELD), FIELD / 4, 3 * FIELD / 4)
    )


def joints(angles: Array) -> Array:
    """Where base, elbow and tip are: angles `[2]` to positions `[3, 2]`."""
    links = LINK * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return jnp.array(BASE) + jnp.concatenate([jnp.zeros((1, 2)), jnp.cumsum(links, axis=0)])


def _arm(id: str, draw_target: Callable[[Key], Array]) -> Env:
    def reset(key: Key) -> tuple[ArmState, Array]:
        angles_key, target_key = jax.random.split(key)
        angles = jax.random.uniform(angles_key, (2,), maxval=2 * jnp.pi)
        state = ArmState(angles, draw_target(target_key), jnp.int32(0), jnp.int32(0))
        return state, _observe(state)[0]

    def step(key: Key, old: ArmState, action: Array) -> tuple[ArmState, Outcome]:
        new = old._replace(angles=old.angles + DT * jnp.clip(action, -1, 1), time=old.time + 1)
        obs, distance = _observe(new)
        on_target = distance < RADIUS
        new = new._replace(held=jnp.where(on_target, old.held + 1, 0))
        terminated = new.held > HOLD
        truncated = (new.time >= MAX_STEPS) & ~terminated
        return new, Outcome(obs, -distance / SCALE + on_target + 10.0 * terminated, terminated, truncated)

    low, high = np.full(7, -2.0), np.full(7, 2.0)  # no joint is farther from a target than that
    low[0], high[0] = 0, 1
    return Env(reset, step, Spec(id, box(low, high, (7,)), box(-1, 1, (2,)), MAX_STEPS), draw=draw)


def _observe(state: ArmState) -> tuple[Array, Array]:
    """The observation, `[7]`, and the distance from tip to target."""
    base, elbow, tip = joints(state.angles) - state.target
    distance = jnp.linalg.norm(tip)
    flag = (distance < RADIUS).astype(jnp.float32)
    return jnp.concatenate([flag[None], elbow / SCALE, tip / SCALE, base / SCALE]), distance


class ArmReachState(NamedTuple):
    """The links' angles as in `ArmState`, where the tip is wanted as seen from the base, and the steps taken."""

    angles: Array
    wanted: Array
    time: Array


def arm_reach() -> Env:
    """The arm of `arm_easy` with goals: -1 a step until its tip is within 15 of where it is wanted.

    The step that gets there has reward 0 and terminates. Truncated after 60 steps; no way takes more than 32. Goals are
    where the tip of an arm with both angles drawn uniformly is, and so are the angles that an episode begins with; in
    place of a goal that the tip is at already comes one half a turn of the second link away. Actions as in `arm_easy`.

    Observations are float32 `[6]`: where elbow and tip are as seen from the base, and where the tip is wanted,
    `(x, y) / 200` each.
    """

    def reset(key: Key) -> tuple[ArmReachState, Array]:
        angles, wanted = jax.random.uniform(key, (2, 2), maxval=2 * jnp.pi)
        wanted = _from_base(wanted)[2:]
        turned = _from_base(angles + jnp.array([0.0, jnp.pi]))[2:]
        wanted = jnp.where(ARM_GOAL.reward(_from_base(angles)[2:], wanted)[1], turned, wanted)
        state = ArmReachState(angles, wanted, jnp.int32(0))
        return state, _observe_reach(state)

    def step(key: Key, old: ArmReachState, action: Array) -> tuple[ArmReachState, Outcome]:
        new = ArmReachState(old.angles + DT * jnp.clip(action, -1, 1), old.wanted, old.time + 1)
        obs = _observe_reach(new)
        reward, terminated = ARM_GOAL.reward(obs[2:4], obs[4:])
        truncated = (new.time >= MAX_REACH_STEPS) & ~terminated
        return new, Outcome(obs, reward, terminated, truncated)

    spec = Spec("jaxrl/ArmReach-v0", box(-1, 1, (6,)), box(-1, 1, (2,)), MAX_REACH_STEPS, goal=ARM_GOAL)
    return Env(reset, step, spec, draw=_draw_reach)


def _from_base(angles: Array) -> Array:
    """Where elbow and tip are as seen from the base, in units of the arm's length: `[2]` to `[4]`."""
    return ((joints(angles) - jnp.array(BASE))[1:] / SCALE).reshape(4)


def _observe_reach(state: ArmReachState) -> Array:
    return jnp.concatenate([_from_base(state.angles), state.wanted])


ARM_GOAL = goal_at_the_end(lambda tip, wanted: jnp.linalg.norm(tip - wanted, axis=-1) <= RADIUS / SCALE, size=2)


def draw(state: ArmState, axes: Axes):
    """The field with the arm and the target, which is brighter where the tip was on it after the last step."""
    drawing.disc(axes, np.asarray(state.target), RADIUS, drawing.ORANGE if int(state.held) else drawing.RED)
    _draw_arm(axes, state.angles)


def _draw_reach(state: ArmReachState, axes: Axes):
    drawing.disc(axes, np.array(BASE) + SCALE * np.asarray(state.wanted), RADIUS, drawing.RED)
    _draw_arm(axes, state.angles)


def _draw_arm(axes: Axes, angles: Array):
    positions = np.asarray(joints(jnp.asarray(angles)))
    drawing.rod(axes, positions, drawing.BLUE, 7)
    for position in positions[:2]:
        drawing.disc(axes, position, 8, drawing.DARK)
    drawing.field(axes, (0, FIELD), (0, FIELD))
