"""Grid worlds, from layouts that are written as text.

    S   where episodes begin; of several, one is drawn       X   a wall, which a step does not enter
    T   treasure: the episode terminates                     #   a trap: it terminates, or it sends back to the start
    .   a free cell

Cells are numbered in reading order, and the number is the observation. A step that would leave the grid stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrl import checks
from jaxrl.envs import drawing
from jaxrl.envs.own.tabular import model_env
from jaxrl.types import Env, Model

CELLS = "S.T#X"
MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}

CORRIDOR = "S....T"
MAZE = """
S...
..#.
.#T.
....
"""
CLIFF = """
............
............
............
S##########T
"""
WINDY = """
..........
..........
..........
S......T..
..........
..........
..........
"""
WIND = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0)


def corridor() -> Env:
    """Six cells in a row: begin at the left end, reward 1 for the treasure at the right end and 0 elsewhere.

    Two actions, left and right; the best policy takes 5 steps. Truncated after 500.
    """
    return grid_world("jaxrl/Corridor-v0", CORRIDOR, moves=("left", "right"), max_steps=500)


def maze(*, layout: str = MAZE) -> Env:
    """A 4 x 4 grid: reward 1 in paradise and -1 in a trap, both of which end the episode. Truncated after 200 steps.

    Args:
      layout: another one, rows as lines or with `/` between them; see `jaxrl.envs.own.grid`.
    """
    return grid_world("jaxrl/Maze-v0", layout, max_steps=200)


def cliff() -> Env:
    """Walking along a cliff (Sutton and Barto 2018, example 6.6): -1 a step, and a step over the edge -100 and back
    to the start. Truncated after 1000 steps."""
    return grid_world(
        "jaxrl/Cliff-v0", CLIFF, step_reward=-1, goal_reward=-1, trap_reward=-100, trap_ends=False, max_steps=1000
    )


def windy_grid() -> Env:
    """A wind blows upwards, a cell or two in some columns (Sutton and Barto 2018, example 6.5): -1 a step.

    Truncated after 1000 steps.
    """
    return grid_world("jaxrl/WindyGrid-v0", WINDY, step_reward=-1, goal_reward=-1, wind=WIND, max_steps=1000)


def grid_world(
    id: str,
    layout: str,
    *,
    goal_reward: float = 1.0,
    trap_reward: float = -1.0,
    step_reward: float = 0.0,
    trap_ends: bool = True,
    wind: tuple[int, ...] = (),
    moves: tuple[str, ...] = tuple(MOVES),
    max_steps: int = 200,
) -> Env:
    """A deterministic grid world.

    Args:
      id: the environment's id.
      layout: its cells; see above.
      goal_reward: for the step into the treasure.
      trap_reward: for the step into a trap.
      step_reward: for any other step.
      trap_ends: whether a trap terminates; else the next state is the start.
      wind: for each column by how many cells a step that begins there is carried upwards; none if empty.
      moves: the names of the actions, of `up`, `down`, `left` and `right`, in their order.
      max_steps: steps after which an episode is truncated.

    Raises:
      JaxrlError: for a layout with no start or no treasure, with unknown characters or with rows of unlike lengths; for
        a reward that is no number, an unknown move, and a wind that has not a whole number for each column.
    """
    rows = parse_layout(id, layout)
    checks.number(id, goal_reward=goal_reward, trap_reward=trap_reward, step_reward=step_reward)
    for name in moves:
        checks.one_of(id, MOVES, moves=name)
    if wind and (len(wind) != len(rows[0]) or any(not isinstance(cells, (int, np.integer)) for cells in wind)):
        raise checks.JaxrlError(
            f"{id}: wind={wind} is not accepted; it must have a whole number for each of the {len(rows[0])} columns"
        )
    model = grid_model(
        rows,
        goal_reward=goal_reward,
        trap_reward=trap_reward,
        step_reward=step_reward,
        trap_ends=trap_ends,
        wind=wind,
        moves=tuple(MOVES[name] for name in moves),
    )
    env = model_env(id, model, max_steps=max_steps, layout=rows, action_names=moves)
    return env._replace(draw=lambda state, axes: drawing.cells(rows, state.state, axes))


def parse_layout(id: str, layout: str) -> tuple[str, ...]:
    """A layout's rows, checked.

    Raises:
      JaxrlError: see `grid_world`.
    """
    if not isinstance(layout, str):
        raise checks.JaxrlError(
            f"{id}: layout={layout!r} is not accepted; it must be text, its rows lines or apart by '/'"
        )
    rows = tuple(row.strip() for row in layout.strip().replace("/", "\n").splitlines())
    for number, row in enumerate(rows):
        for character in row:
            if character not in CELLS:
                raise checks.JaxrlError(
                    f"{id}: layout has {character!r} in row {number}; a cell must be one of S (start), T (treasure), "
                    "# (trap), X (wall) and . (free)"
                )
        if len(row) != len(rows[0]):
            raise checks.JaxrlError(
                f"{id}: layout has rows of unlike lengths, {len(rows[0])} in row 0 and {len(row)} in row {number}; "
                "all must be equally long"
            )
    for cell, name in (("S", "start"), ("T", "treasure")):
        if not any(cell in row for row in rows):
            raise checks.JaxrlError(f"{id}: layout has no {name}; it must have at least one {cell}")
    return rows


def grid_model(
    rows: tuple[str, ...],
    *,
    goal_reward: float,
    trap_reward: float,
    step_reward: float,
    trap_ends: bool,
    wind: tuple[int, ...] = (),
    moves: tuple[tuple[int, int], ...] = tuple(MOVES.values()),
) -> Model:
    """The model of a grid of `S` cells with `A` moves, `(rows, columns)` each; arguments as in `grid_world`."""
    cells = np.array([list(row) for row in rows])
    height, width = cells.shape
    flat = cells.ravel()
    row, column = np.divmod(np.arange(cells.size)[:, None], width)  # [S, 1]
    down, right = np.array(moves).T  # [A]
    lift = np.array(wind or (0,) * width)[column]
    to = np.clip(row + down - lift, 0, height - 1) * width + np.clip(column + right, 0, width - 1)  # [S, A]
    to = np.where(flat[to] == "X", np.arange(cells.size)[:, None], to)
    reward = np.select([flat[to] == "T", flat[to] == "#"], [goal_reward, trap_reward], step_reward)
    start = (flat == "S") / np.sum(flat == "S")
    transition = np.eye(cells.size)[to]  # [S, A, S]
    if not trap_ends:
        transition[flat[to] == "#"] = start
    terminal = (flat == "T") | ((flat == "#") & trap_ends)
    transition[terminal] = np.eye(cells.size)[terminal][:, None]
    reward = np.where(terminal[:, None], 0, reward)
    return Model(transition.astype(np.float32), reward.astype(np.float32), terminal, start.astype(np.float32))


def frozen_lake_model(
    rows: tuple[str, ...], success_rate: float, rewards: tuple[float, float, float], moves: tuple[tuple[int, int], ...]
) -> Model:
    """The model of a grid on whose ice a move slips to either side.

    Args:
      rows: the layout's, with holes as traps.
      success_rate: the probability that a move goes where it should; the rest is shared by its neighbours in `moves`.
      rewards: for the step into the treasure, into a hole, and elsewhere.
      moves: as in `grid_model`, in the order of the compass.
    """
    goal, hole, ice = rewards
    sure = grid_model(rows, goal_reward=goal, trap_reward=hole, step_reward=ice, trap_ends=True, moves=moves)

    def slipping(x: Any) -> np.ndarray:
        sides = np.roll(x, 1, axis=1) + np.roll(x, -1, axis=1)
        return (success_rate * x + (1 - success_rate) / 2 * sides).astype(np.float32)

    return sure._replace(transition=slipping(sure.transition), reward=slipping(sure.reward))


def draw(layout: tuple[str, ...], state: int | None = None) -> str:
    """A grid as text, with `o` where the agent is.

    Args:
      layout: `env.spec.layout`.
      state: the agent's cell, an observation; None leaves it out.

    Raises:
      JaxrlError: for an environment without a layout, and for a cell that is not in it.

    Example:
      >>> from jaxrl import make
      >>> draw(make("jaxrl/Corridor-v0").spec.layout, 2)
      '..o..T'
    """
    if not layout:
        raise checks.JaxrlError("draw: the environment has no layout; the grid worlds have one (jaxrl/Maze-v0, ...)")
    cells = list("".join(layout).replace("S", "."))
    if state is not None:
        if not 0 <= int(state) < len(cells):
            raise checks.JaxrlError(
                f"draw: state={state} is not accepted; it must be a cell's number, 0 to {len(cells) - 1}"
            )
        cells[int(state)] = "o"
    width = len(layout[0])
    return "\n".join("".join(cells[i : i + width]) for i in range(0, len(cells), width))
