"""A corridor of six cells: how fast Q-learning finds the way to a treasure at its end.

The reward is at the far end alone, so the first episode is a random walk, and each one after it carries the value one
cell further back. After a few the way is known, and what is left above the optimum of 5 steps is exploration.

The book has no such figure; the agent is that of Sutton and Barto 2018, section 6.5.

    python experiments/corridor.py
"""

from __future__ import annotations

import pathlib

import numpy as np
import rich
import tyro
from episodes import FIGURES, GREY, new_figure, optimal_steps, per_episode, save, train_seeds
from matplotlib.ticker import MaxNLocator
from rich.table import Table

import jaxrl
from jaxrl.analysis.plot import PALETTE

GAMMA = 0.9


def main(
    seeds: int = 256, episodes: int = 13, out: pathlib.Path = FIGURES / "corridor.png"
) -> dict[str, np.ndarray | int]:
    """Steps per episode of Q-learning in the corridor, over many seeds.

    Args:
      seeds: how many runs.
      episodes: episodes of each run.
      out: where to write the figure.

    Returns:
      the quartiles of the episodes' lengths over seeds, `low`, `median` and `high`, `[episodes]`, and the `optimum`.
    """
    env = jaxrl.make("jaxrl/Corridor-v0")
    optimum = optimal_steps(env, GAMMA)
    agent = jaxrl.q_learning(learning_rate=0.1, gamma=GAMMA, epsilon_start=0.1, epsilon_final=0.1)
    steps = episodes * env.spec.max_steps  # however long the episodes are, these are enough
    _, metrics = train_seeds(agent, env, num_steps=steps, seeds=seeds, names=("episode_length",))
    lengths = per_episode(metrics, "episode_length", episodes)
    low, median, high = np.quantile(lengths, (0.25, 0.5, 0.75), axis=0)
    numbers = {"low": low, "median": median, "high": high, "mean": lengths.mean(axis=0), "optimum": optimum}
    rich.print(tabulate(numbers, seeds))
    save(draw(numbers, seeds), out)
    return numbers


def tabulate(numbers: dict, seeds: int) -> Table:
    table = Table(title=f"steps per episode over {seeds} seeds (optimum {numbers['optimum']})")
    for name in ("episode", "lower quartile", "median", "upper quartile", "mean"):
        table.add_column(name, justify="right")
    rows = zip(*(numbers[name] for name in ("low", "median", "high", "mean")), strict=True)
    for episode, row in enumerate(rows, start=1):
        table.add_row(str(episode), *(f"{x:.4g}" for x in row))
    return table


def draw(numbers: dict, seeds: int):
    figure, (axes,) = new_figure(f"Q-learning in a corridor of six cells, {seeds:,} seeds")
    episodes = np.arange(1, len(numbers["median"]) + 1)
    axes.fill_between(
        episodes, numbers["low"], numbers["high"], color=PALETTE[0], alpha=0.2, lw=0, label="middle half of the seeds"
    )
    axes.plot(episodes, numbers["median"], color=PALETTE[0], marker="o", ms=5, lw=1.8, label="median")
    axes.axhline(numbers["optimum"], color=GREY, ls="--", lw=1.2, label=f"optimum, {numbers['optimum']} steps")
    axes.set(xlabel="episode", ylabel="length of the episode (steps)", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=len(episodes)))
    axes.legend(frameon=False, fontsize=10)
    return figure


if __name__ == "__main__":
    tyro.cli(main)
