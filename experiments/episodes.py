"""What the studies share: all seeds as one program, numbers by the episode, their means, and the look of a figure."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

import jaxrl
from jaxrl import Results, checks, planning
from jaxrl.analysis.plot import DPI, PALETTE, SIZE, style
from jaxrl.analysis.results import format_number
from jaxrl.analysis.statistics import final_return
from jaxrl.runs.program import seed_keys
from jaxrl.types import Agent, Array, Env, Key, Metrics, PyTree, Spec, Transition

FIGURES = pathlib.Path(__file__).parent / "figures"
GREY = "#717581"


def train_seeds(
    agent: Agent, env: Env, *, num_steps: int, seeds: int, names: tuple[str, ...]
) -> tuple[PyTree, dict[str, np.ndarray]]:
    """Trains all seeds of an agent in one compiled program, spread over the devices.

    Args:
      agent: whom to train; its rollout is of one step, so that an update sees the end of one episode at most.
      env: where.
      num_steps: environment steps of each seed.
      seeds: how many seeds, at least 2.
      names: the metrics to keep, besides `episode_count`.

    Returns:
      the final agent states, leaves `[S, ...]`, and the metrics, `[S, updates]`.

    Raises:
      JaxrlError: where an argument is out of its range.
    """
    checks.integer("train_seeds", 2, seeds=seeds)

    def train(key: Key) -> tuple[PyTree, Metrics]:
        state, metrics = jaxrl.train(key, agent, env, num_steps)
        return state.agent, {name: metrics[name] for name in ("episode_count", *names)}

    devices = jax.devices()[:seeds]
    padded = -(-seeds // len(devices)) * len(devices)
    keys = seed_keys(jax.random.key(0), jnp.arange(padded) % seeds)
    mesh, split = Mesh(np.array(devices), ("seed",)), P("seed")
    sharded = jax.shard_map(jax.jit(jax.vmap(train)), mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    return jax.tree.map(lambda x: np.asarray(x)[:seeds], jax.jit(sharded)(keys))


def use_all_cores():
    """Makes a device of each core of the CPU, for `train_seeds` and `sweep` to spread their seeds over."""
    jax.config.update("jax_num_cpu_devices", os.cpu_count())


def folder_of(runs: pathlib.Path | None, name: str) -> pathlib.Path | None:
    """Where a study keeps one of its runs, so that the same command goes on after an interruption; None keeps none."""
    return None if runs is None else runs / name.replace("/", "-")


def per_episode(metrics: Mapping[str, np.ndarray], name: str, num_episodes: int) -> np.ndarray:
    """A metric at the updates in which episodes ended.

    Args:
      metrics: `[S, updates]` each, where an update sees one step: `episode_count`, 0 or 1, and `name`.
      name: which metric, such as `episode_length`.
      num_episodes: how many episodes, from the first on.

    Returns:
      `[S, num_episodes]`.

    Raises:
      JaxrlError: if a seed ended fewer episodes, or several in one update.
    """
    checks.integer("per_episode", num_episodes=num_episodes)
    counts = np.asarray(metrics["episode_count"])
    if counts.max() > 1:
        raise checks.JaxrlError(
            f"per_episode: {counts.max():g} episodes ended in one update; num_envs and rollout_length must be 1"
        )
    least = int(counts.sum(axis=1).min())
    if least < num_episodes:
        raise checks.JaxrlError(
            f"per_episode: num_episodes={num_episodes} is not accepted; a seed ended {least} in {counts.shape[1]} "
            "steps, so take fewer episodes or more steps"
        )
    ends = np.argsort(counts == 0, axis=1, kind="stable")[:, :num_episodes]  # the updates with an end come first
    return np.take_along_axis(np.asarray(metrics[name]), ends, axis=1)


def reporting(agent: Agent, name: str, function: Callable[[PyTree, Transition], Array]) -> Agent:
    """The agent, with one more metric: `function(state, trajectory)`, a float scalar, of the state after an update."""

    def update(state: PyTree, trajectory: Transition, key: Key, step: Array) -> tuple[PyTree, Metrics]:
        state, metrics = agent.update(state, trajectory, key, step)
        return state, metrics | {name: function(state, trajectory)}

    return agent._replace(update=update)


def measured(agent: Agent, name: str, function: Callable[[PyTree], Array]) -> Agent:
    """The agent, with one more metric: `function(state)`, a float scalar, of its state after each update."""
    return reporting(agent, name, lambda state, _: function(state))


class AveragedState(NamedTuple):
    """The state of the agent that is measured, how many episodes ended, and the sum over them; both float32 `()`."""

    agent: PyTree
    episodes: Array
    total: Array


def averaged(agent: Agent, name: str, function: Callable[[PyTree], Array], num_episodes: int) -> Agent:
    """The agent, with one more metric: the mean of `function(state)` over the ends of the first episodes so far.

    Args:
      agent: one whose rollout is of one step in one environment.
      name: the metric's.
      function: from the agent's state to a float scalar.
      num_episodes: the episodes that count; after them the metric no longer changes.
    """

    def init(key: Key, spec: Spec) -> AveragedState:
        return AveragedState(agent.init(key, spec), jnp.float32(0), jnp.float32(0))

    def act(state: AveragedState, *args, **kwargs) -> tuple:
        return agent.act(state.agent, *args, **kwargs)

    def update(state: AveragedState, trajectory: Transition, key: Key, step: Array) -> tuple[AveragedState, Metrics]:
        inner, metrics = agent.update(state.agent, trajectory, key, step)
        counts = (trajectory.terminated | trajectory.truncated)[0, 0] & (state.episodes < num_episodes)
        total = state.total + jnp.where(counts, function(inner), 0)
        state = AveragedState(inner, state.episodes + counts, total)
        return state, metrics | {name: total / jnp.maximum(state.episodes, 1)}

    return agent._replace(init=init, act=act, update=update)


def optimal_steps(env: Env, gamma: float) -> int:
    """How many steps the best policy takes, by planning."""
    best = planning.value_iteration(env.model, gamma=gamma).policy
    return int(planning.path_length(env.model, best, env.spec.max_steps))


def greedy_path_length(env: Env) -> Callable[[PyTree], Array]:
    """For `measured`: the steps of the greedy path from the start, by the table `q` of a state.

    No path without a loop has more steps than there are states, so one more than these means that it does not arrive.
    """
    return lambda state: planning.path_length(env.model, state.q.argmax(-1), env.spec.obs_space.n).astype(jnp.float32)


def mean_interval(values: np.ndarray, axis: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over many seeds, and the ends of its 95 % interval: 1.96 standard errors to either side."""
    with np.errstate(invalid="ignore", over="ignore"):  # of values that diverged: infinite or NaN
        mean = values.mean(axis)
        margin = 1.96 * values.std(axis, ddof=1) / np.sqrt(values.shape[axis])
    return mean, mean - margin, mean + margin


def final_cell(per_seed: np.ndarray) -> str:
    """A table's cell: the interquartile mean over seeds `[S]`, and its 95 % bootstrap interval, which one has not."""
    found = final_return(per_seed)
    numbers = [found[name] for name in ("iqm", "ci_low", "ci_high")]
    iqm, low, high = (f"{x:.2g}" if abs(x) > 1e6 else format_number(x) for x in numbers)
    return f"{iqm} ({low} to {high})" if len(per_seed) > 1 else iqm


def new_figure(title: str, columns: int = 1, sharey: bool = True) -> tuple[Figure, list[Axes]]:
    """An empty figure in the style of `jaxrl.analysis.plot`, of axes side by side, which may share the vertical one."""
    figure = Figure(figsize=(SIZE[0] if columns == 1 else 4.2 * columns, SIZE[1]), dpi=DPI, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    panels = figure.subplots(1, columns, sharey=sharey, squeeze=False)[0]
    for axes in panels:
        style(axes)
    return figure, list(panels)


def draw_band(axes: Axes, x: np.ndarray, line: np.ndarray, low: np.ndarray, high: np.ndarray, label: str, color: str):
    """A line and the band between two others."""
    axes.plot(x, line, color=color, lw=1.8, label=label, zorder=3)
    axes.fill_between(x, low, high, color=color, alpha=0.2, lw=0, zorder=2)


def draw_curves(axes: Axes, results: Results, names: Sequence[str], metric: str = "episode_return"):
    """A metric of each configuration of a run: the interquartile mean over seeds, in the 95 % bootstrap interval."""
    steps, *curves = map(np.atleast_2d, results.curve(metric))
    for name, color, *band in zip(names, PALETTE, *curves, strict=False):
        draw_band(axes, steps[0], *band, name, color)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 50k
    axes.set_xlabel("environment steps")
    axes.margins(x=0.01)


def save(figure: Figure, path: pathlib.Path):
    """Writes the figure, and says where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"figure: {path}")
