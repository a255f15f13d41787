"""A corridor of six cells: how fast Q-learning finds the way to a treasure at its end.

The reward is at the far end alone, so the first episode is a random walk, and each one after it carries the value one
cell further back. After a few the way is known, and what is left above the optimum of 5 steps is exploration.

The book has no such figure; the agent is that of Sutton and Barto 2018, section 6.5.

    python experiments/corridor.py
"""

import pathlib

import numpy as np
import tyro
from common import FIGURES, show, train_seeds
from matplotlib.ticker import MaxNLocator

import jaxrl
from jaxrl import planning
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import GREY, PALETTE, new_figure
from jaxrl.analysis.statistics import per_episode

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
    best = planning.value_iteration(env.model, gamma=GAMMA).policy
    optimum = int(planning.path_length(env.model, best, env.spec.max_steps))
    agent = jaxrl.q_learning(learning_rate=0.1, gamma=GAMMA, epsilon_start=0.1, epsilon_final=0.1)
    steps = episodes * env.spec.max_steps  # however long the episodes are, these are enough
    _, metrics = train_seeds(agent, env, num_steps=steps, seeds=seeds, names=("episode_length",))
    lengths = per_episode(metrics, "episode_length", episodes)
    low, median, high = np.quantile(lengths, (0.25, 0.5, 0.75), axis=0)
    mean, number = lengths.mean(axis=0), np.arange(1, episodes + 1)

    title = f"steps per episode over {seeds} seeds (optimum {optimum})"
    header = ("episode", "lower quartile", "median", "upper quartile", "mean")
    rows = np.column_stack([number, low, median, high, mean])
    found = table(title, header, [[f"{x:.4g}" for x in row] for row in rows], text=())
    figure, (axes,) = new_figure(
        f"Q-learning in a corridor of six cells, {seeds:,} seeds",
        xlabel="episode", ylabel="length of the episode (steps)",
    )  # fmt: skip
    axes.fill_between(number, low, high, color=PALETTE[0], alpha=0.2, lw=0, label="middle half of the seeds")
    axes.plot(number, median, color=PALETTE[0], marker="o", ms=5, lw=1.8, label="median")
    axes.axhline(optimum, color=GREY, ls="--", lw=1.2, label=f"optimum, {optimum} steps")
    axes.set_ylim(0, None)
    axes.margins(x=0.05)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=episodes))
    axes.legend(frameon=False, fontsize=10)
    show(found, figure, out)
    return {"low": low, "median": median, "high": high, "mean": mean, "optimum": optimum}


if __name__ == "__main__":
    tyro.cli(main)
