"""How environments draw themselves: one state, on axes of matplotlib.

A drawing is given empty axes and sets their limits; `jaxrl.analysis.render` makes pictures and animations of it.
All is done with the axes' own methods, so that nothing here waits for matplotlib to be imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, RED, ORANGE = "#3f90da", "#bd1f01", "#ffa90e"
DARK, GREY = "#444444", "#94a4a2"

# Of a grid world's characters.
CELLS = {"S": (228,) * 3, ".": (228,) * 3, "T": (191, 227, 180), "#": (232, 180, 170), "X": (85,) * 3}

# Of a picture's channels, in their order; past the tenth they begin again.
CHANNELS = np.array(
    [
        *((63, 144, 218), (255, 169, 14), (148, 164, 162), (189, 31, 1), (146, 218, 221)),
        *((131, 45, 182), (231, 99, 0), (185, 172, 112), (169, 107, 89), (240, 240, 240)),
    ],
    np.uint8,
)
BACKGROUND = np.array([28, 28, 34], np.uint8)


def field(axes: Axes, x: tuple[float, float], y: tuple[float, float]):
    """Shows this part of the plane, both axes to one scale and without ticks."""
    axes.set(xlim=x, ylim=y, xticks=[], yticks=[], aspect="equal")


def disc(axes: Axes, centre: Any, radius: float, color: str):
    """A filled circle around `centre`, `[2]`, above what was drawn before."""
    angle = np.linspace(0, 2 * np.pi, 49)
    axes.fill(centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle), color=color, lw=0, zorder=3)


def rod(axes: Axes, points: Any, color: str = DARK, width: float = 5):
    """A line with round ends through `points`, `[P, 2]`; its width is in points of type."""
    axes.plot(*np.asarray(points).T, color=color, lw=width, solid_capstyle="round", solid_joinstyle="round", zorder=2)


def cells(layout: tuple[str, ...], state: Any, axes: Axes):
    """A grid world, its treasure, traps and walls, and the agent as a disc.

    Args:
      layout: `env.spec.layout`.
      state: the number of the agent's cell.
      axes: what to draw on.
    """
    height, width = len(layout), len(layout[0])
    axes.imshow(np.array([[CELLS[cell] for cell in line] for line in layout], np.uint8))
    axes.vlines(np.arange(1, width) - 0.5, -0.5, height - 0.5, color="white", lw=1.5)
    axes.hlines(np.arange(1, height) - 0.5, -0.5, width - 0.5, color="white", lw=1.5)
    for place, cell in enumerate("".join(layout)):
        if cell in "ST#":
            row, column = divmod(place, width)
            axes.text(column, row, cell, ha="center", va="center", fontsize=10, color=DARK)
    row, column = divmod(int(state), width)
    disc(axes, (column, row), 0.3, BLUE)
    field(axes, (-0.5, width - 0.5), (height - 0.5, -0.5))


def pixels(observation: Any, axes: Axes):
    """An observed picture, `[H, W]` or `[H, W, C]`: where a channel is not 0, its colour; of several the first's."""
    channels = np.asarray(observation) != 0
    channels = channels.reshape(*channels.shape[:2], -1)  # [H, W] -> [H, W, 1]
    colors = CHANNELS[channels.argmax(-1) % len(CHANNELS)]
    axes.imshow(np.where(channels.any(-1, keepdims=True), colors, BACKGROUND))
    axes.set(xticks=[], yticks=[])


def cart_pole(state: Any, axes: Axes, params: Any):
    """The cart on its track, whose ends are where an episode terminates, and the pole."""
    x, angle, limit, length = float(state.x), float(state.theta), float(params.x_threshold), 2 * float(params.length)
    rod(axes, [(-limit, 0), (limit, 0)], GREY, 1.5)
    axes.fill_between([x - 0.3, x + 0.3], -0.15, 0.15, color=DARK, lw=0, zorder=2)
    rod(axes, [(x, 0.15), (x + length * np.sin(angle), 0.15 + length * np.cos(angle))], ORANGE)
    field(axes, (-limit - 0.4, limit + 0.4), (-0.6, length + 0.5))


def pendulum(state: Any, axes: Axes, params: Any):
    """The pendulum; an angle of 0 is upright, and it grows counter-clockwise."""
    angle, length = float(state.theta), float(params.l)
    rod(axes, [(0, 0), (-length * np.sin(angle), length * np.cos(angle))], RED, 9)
    disc(axes, (0, 0), 0.06 * length, DARK)
    field(axes, (-1.2 * length, 1.2 * length), (-1.2 * length, 1.2 * length))


def mountain_car(state: Any, axes: Axes, params: Any):
    """The valley, the car as a disc, and a flag at the goal."""
    low, high, goal, position = map(
        float, (params.min_position, params.max_position, params.goal_position, state.position)
    )

    def height(x: Any) -> Any:
        return 0.45 * np.sin(3 * x) + 0.55

    x = np.linspace(low, high, 100)
    rod(axes, np.stack([x, height(x)], -1), GREY, 2)
    rod(axes, [(goal, height(goal)), (goal, height(goal) + 0.2)], DARK, 1.5)
    axes.fill([goal, goal + 0.1, goal], height(goal) + np.array([0.2, 0.16, 0.12]), color=ORANGE, lw=0)
    disc(axes, (position, height(position) + 0.05), 0.05, BLUE)
    field(axes, (low - 0.05, high + 0.1), (0, 1.3))


def acrobot(state: Any, axes: Axes, params: Any):
    """Both links, and the line that the tip must rise above; the second link's angle is measured from the first."""
    angles = np.cumsum([float(state.joint_angle1), float(state.joint_angle2)])
    lengths = np.array([params.link_length_1, params.link_length_2], float)
    joints = np.cumsum([(0, 0), *zip(lengths * np.sin(angles), -lengths * np.cos(angles), strict=True)], axis=0)
    reach = 1.1 * lengths.sum()
    rod(axes, [(-reach, 1), (reach, 1)], GREY, 1)
    rod(axes, joints, BLUE)
    for joint in joints[:2]:
        disc(axes, joint, 0.08, DARK)
    field(axes, (-reach, reach), (-reach, reach))


# gymnax's classic control, of state, axes and `EnvParams`.
CLASSIC = {
    "CartPole-v1": cart_pole,
    "Pendulum-v1": pendulum,
    "MountainCar-v0": mountain_car,
    "MountainCarContinuous-v0": mountain_car,
    "Acrobot-v1": acrobot,
}
