"""Pictures and animations of an episode, of environments that can draw themselves (`Env.draw`).

A frame is the state that an action is chosen in, so an episode of `T` steps has `T` of them, the first its start. The
state that its last step leads to is not among them, as no action is chosen in it.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks, prng
from jaxrl.envs.check import require_env
from jaxrl.evaluation import default_max_steps
from jaxrl.files import write_atomically
from jaxrl.numerics import standard_numbers
from jaxrl.types import Agent, Array, Env, HostEnv, Key, PyTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("gif", "png")
DRAWN = (
    *("jaxrl/Corridor-v0", "jaxrl/Maze-v0", "jaxrl/Cliff-v0", "jaxrl/WindyGrid-v0", "jaxrl/PointReach-v0"),
    *("jaxrl/Point-v0", "jaxrl/Arm-easy-v0", "jaxrl/Arm-hard-v0", "jaxrl/ArmReach-v0", "CartPole-v1", "Pendulum-v1"),
    *("Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"),
    *("Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar"),
    *("Seaquest-MinAtar", "SpaceInvaders-MinAtar", "Catch-bsuite", "DeepSea-bsuite", "Pong-misc", "FrozenLake-misc"),
)
PANEL = 3.6  # inches: the longer side of what is drawn
TITLE, GAP = 0.32, 0.1  # inches above it, and around it
DPI = 100


@standard_numbers
def rollout(key: Key, agent: Agent, state: PyTree, env: Env, max_steps: int | None = None) -> tuple[PyTree, Array]:
    """The environment's states in one greedy episode. Pure, like `jaxrl.evaluate`.

    Args:
      key: for the environment's draws (and the policy's, where even its greedy form is random).
      agent: who acts.
      state: the agent's state, `TrainState.agent` after training.
      env: where.
      max_steps: where a longer episode is cut off; by default the environment's own time limit, or 10,000 where it has
        none.

    Returns:
      the states in which the agent acted, leaves `[max_steps, ...]`, and how many of them there are, int32 `()`; what
      follows is zeros. Keys in them are the integers that they are made of.

    Raises:
      JaxrlError: if `max_steps` is not a positive whole number, or an environment is none, or not as it must be.
    """
    env = require_env("rollout", env)
    limit = max_steps if max_steps is not None else default_max_steps(env.spec)
    checks.integer("rollout", max_steps=limit)
    reset_key, run_key = jax.random.split(prng.unrolled(key))
    env_state, obs = env.reset(reset_key)

    def unfinished(carry):
        t, *_, ended = carry
        return (t < limit) & ~ended

    def one_step(carry):
        t, memory, env_state, obs, states, _ = carry
        states = jax.tree.map(lambda all, now: all.at[t].set(now), states, prng.as_numbers(env_state))
        act_key, step_key = jax.random.split(jax.random.fold_in(run_key, t))
        batch = jax.tree.map(lambda x: x[None], obs)  # [...] -> [N=1, ...]
        action, memory, _ = agent.act(state, memory, batch, act_key, jnp.int32(0), explore=False)
        env_state, outcome = env.step(step_key, env_state, action[0])
        return t + 1, memory, env_state, outcome.obs, states, outcome.terminated | outcome.truncated

    states = jax.tree.map(lambda x: jnp.zeros((limit, *x.shape), x.dtype), prng.as_numbers(env_state))
    carry = (jnp.int32(0), agent.init_memory(1), env_state, obs, states, jnp.bool(False))
    length, *_, states, _ = jax.lax.while_loop(unfinished, one_step, carry)
    return states, length


def episode(key: Key, agent: Agent, state: PyTree, env: Env, max_steps: int | None = None) -> PyTree:
    """`rollout`, compiled and cut to the episode's length: states of NumPy arrays, leaves `[T, ...]`."""
    states, length = jax.jit(lambda key, state: rollout(key, agent, state, env, max_steps))(key, state)
    return jax.tree.map(lambda x: np.asarray(x[: int(length)]), states)


def animate(env: Env | HostEnv, states: PyTree, path: str | os.PathLike, fps: float = 25) -> None:
    """Writes an animation, one frame for each state.

    Args:
      env: an environment that can draw itself.
      states: of one episode, from `episode`; leaves `[T, ...]`.
      path: the file, which must end in .gif.
      fps: frames per second, 1 to 50; a viewer that follows the format waits for hundredths of a second.

    Raises:
      JaxrlError: for an environment that cannot draw itself, another ending or rate.

    Example::

        env, agent = jaxrl.make("jaxrl/Point-v0", discretize_actions=3), jaxrl.dqn()
        state, _ = jaxrl.train(key, agent, env, 50_000)
        animate(env, episode(key, agent, state.agent, env), "point.gif")
    """
    draw = check(env, path, ("gif",))
    checks.number("animate", 1, 50, fps=fps)
    from PIL import Image

    figure, [axes] = _panels(draw, states, 1)
    canvas: Any = figure.canvas  # of the backend that draws into memory
    own, images = axes.get_children(), []
    for t in range(_length(states)):
        for drawn in set(axes.get_children()).difference(own):  # `axes.clear` takes as long as all the rest
            drawn.remove()
        draw(_state(states, t), axes)
        axes.set_title(f"{env.spec.id}, step {t}", fontsize=10)
        canvas.draw()
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(256))
    options = {"save_all": True, "append_images": images[1:], "duration": 1000 / fps, "loop": 0}
    write_atomically(path, lambda file: images[0].save(file, format="GIF", **options))


def picture(env: Env | HostEnv, states: PyTree, path: str | os.PathLike, num_frames: int = 6) -> None:
    """Writes a picture: states of the episode in a row, evenly spaced, the first and the last among them.

    Args:
      env: an environment that can draw itself.
      states: of one episode, from `episode`; leaves `[T, ...]`.
      path: the file, which must end in .png.
      num_frames: how many; fewer where the episode has fewer.

    Raises:
      JaxrlError: for an environment that cannot draw itself, another ending or number.
    """
    draw = check(env, path, ("png",))
    checks.integer("picture", num_frames=num_frames)
    times = np.unique(np.linspace(0, _length(states) - 1, num_frames).round().astype(int))
    figure, panels = _panels(draw, states, len(times))
    for axes, t in zip(panels, times, strict=True):
        draw(_state(states, t), axes)
        axes.set_title(f"{env.spec.id}, step {t}" if axes is panels[0] else f"step {t}", fontsize=10)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=DPI))


def render(env: Env | HostEnv, states: PyTree, path: str | os.PathLike) -> None:
    """An animation or a picture, as the path ends in .gif or .png; see `animate` and `picture`.

    Raises:
      JaxrlError: for an environment that cannot draw itself, and another ending.
    """
    check(env, path)
    (animate if _ending(path) == "gif" else picture)(env, states, path)


def check(env: Env | HostEnv, path: str | os.PathLike, formats: tuple[str, ...] = FORMATS) -> Callable[..., None]:
    """`env.draw`, after a check that the environment has it, and that a path ends in one of the formats.

    Raises:
      JaxrlError: saying which environments can, or which endings there are.
    """
    if _ending(path) not in formats:
        raise checks.JaxrlError(f"render: {os.fspath(path)} is not accepted; it must end in .{' or .'.join(formats)}")
    if env.draw is None:
        raise checks.JaxrlError(f"render: {env.spec.id} cannot draw itself; these can: {', '.join(DRAWN)}")
    return env.draw


def _ending(path: str | os.PathLike) -> str:
    return pathlib.Path(path).suffix.lower().removeprefix(".")


def _length(states: PyTree) -> int:
    return len(jax.tree.leaves(states)[0])


def _state(states: PyTree, t: int) -> PyTree:
    return jax.tree.map(lambda x: x[t], states)


def _panels(draw: Callable[..., None], states: PyTree, number: int) -> tuple[Figure, list[Any]]:
    """A figure with so many axes in a row, shaped as the environment's first state is drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(dpi=DPI)
    FigureCanvasAgg(figure)
    probe: Axes = figure.add_subplot()
    draw(_state(states, 0), probe)
    sides = np.abs([np.diff(probe.get_xlim())[0], np.diff(probe.get_ylim())[0]])
    probe.remove()
    width, height = PANEL * sides / sides.max()
    whole = np.array([number * (width + GAP) + GAP, height + TITLE + GAP])
    figure.set_size_inches(*whole)
    axes = [
        figure.add_axes((*((GAP + i * (width + GAP), GAP) / whole), *((width, height) / whole))) for i in range(number)
    ]
    return figure, axes
