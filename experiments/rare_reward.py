"""A rare reward: with prioritized replay DQN gets to the flag in fewer steps than with uniform replay.

A car in a valley gets -1 a step and +10 at the flag, and may try for 10,000 steps where MountainCar-v0 gives it 200, so
a random policy does arrive, after thousands of steps. Of all that is in the replay, few transitions have the reward;
prioritized replay draws them again and again (Schaul et al. 2016). Drawn are the steps of the first episodes.

    python experiments/rare_reward.py
"""

from __future__ import annotations

import pathlib

import jax.numpy as jnp
import numpy as np
import rich
import tyro
from episodes import FIGURES, draw_band, final_cell, new_figure, per_episode, save, train_seeds, use_all_cores
from matplotlib.ticker import MaxNLocator
from rich.table import Table

import jaxrl
from jaxrl.analysis.plot import PALETTE
from jaxrl.analysis.statistics import bootstrap_interval, interquartile_mean
from jaxrl.types import Agent, Array, Env, Key, Outcome, PyTree

FLAG = 10.0
SHOWN = (1, 2, 3, 5, 10, 15)  # the table's episodes


def main(
    seeds: int = 32, episodes: int = 20, limit: int = 10_000, out: pathlib.Path = FIGURES / "rare_reward.png"
) -> dict[str, np.ndarray]:
    """Steps to the flag of DQN with uniform and prioritized replay, over many seeds.

    Args:
      seeds: how many runs of each agent.
      episodes: episodes of each run.
      limit: environment steps after which an episode is cut off; each run has as many as all of its episodes may take.
      out: where to write the figure.

    Returns:
      by replay: the length of each episode, `[S, episodes]`.
    """
    env = treasured(jaxrl.make("MountainCar-v0", max_steps_in_episode=limit))
    steps = episodes * limit
    lengths = {}
    for name, agent in agents().items():
        _, metrics = train_seeds(agent, env, num_steps=steps, seeds=seeds, names=("episode_length",))
        lengths[name] = per_episode(metrics, "episode_length", episodes)
    rich.print(tabulate(lengths))
    save(draw(lengths), out)
    return lengths


def treasured(env: Env) -> Env:
    """The environment with another reward for the step that terminates."""

    def step(key: Key, state: PyTree, action: Array) -> tuple[PyTree, Outcome]:
        state, outcome = env.step(key, state, action)
        return state, outcome._replace(reward=jnp.where(outcome.terminated, FLAG, outcome.reward))

    return env._replace(step=step)


def agents() -> dict[str, Agent]:
    """The two, by name, alike but for the replay."""
    common = {
        "learning_rate": 5e-3,
        "gamma": 0.99,
        "hidden_sizes": (20,),
        "batch_size": 32,
        "replay_size": 10_000,
        "warmup_steps": 1_000,
        "epsilon_decay_steps": 10_000,
        "epsilon_final": 0.1,
        "target_update_every": 500,
        "loss": "squared",
    }
    return {name: jaxrl.dqn(replay=name, **common) for name in ("uniform", "prioritized")}


def tabulate(lengths: dict[str, np.ndarray]) -> Table:
    seeds, episodes = lengths["uniform"].shape
    table = Table(title=f"mountain car: steps to the flag, IQM (95 % interval) of {seeds:,} seeds")
    for name in ("episode", *lengths):
        table.add_column(name, justify="right")
    for episode in sorted({*SHOWN, episodes}):
        if episode <= episodes:
            table.add_row(str(episode), *(final_cell(found[:, episode - 1]) for found in lengths.values()))
    table.add_row("all", *(final_cell(found.sum(axis=1)) for found in lengths.values()))
    return table


def draw(lengths: dict[str, np.ndarray]):
    seeds, episodes = lengths["uniform"].shape
    title = f"Mountain car with a rare reward, {seeds:,} seeds: IQM and 95 % interval"
    figure, panels = new_figure(title, columns=2, sharey=False)
    names = ("steps to the flag", "steps of all episodes so far")
    for axes, name, shape in zip(panels, names, (lambda x: x, lambda x: x.cumsum(axis=1)), strict=True):
        for (replay, found), color in zip(lengths.items(), PALETTE, strict=False):
            values = shape(found)
            band = interquartile_mean(values, axis=0), *bootstrap_interval(values)
            draw_band(axes, np.arange(1, episodes + 1), *band, f"{replay} replay", color)
        axes.set(xlabel="episode", ylabel=name)
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_yscale("log")
    panels[0].legend(frameon=False, fontsize=10)
    return figure


if __name__ == "__main__":
    use_all_cores()
    tyro.cli(main)
