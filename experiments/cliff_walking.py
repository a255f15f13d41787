"""Walking along a cliff: Q-learning learns the shortest way, and falls off it while it explores; Sarsa walks around.

The lower part of the figure in example 6.6 of Sutton and Barto 2018, section 6.5: the sum of rewards during an episode
of Q-learning and Sarsa, and of expected Sarsa (section 6.6), averaged over seeds and smoothed over episodes. The table
has the greedy paths at the end, which are the upper part: along the edge in 13 steps, or a row or more away from it.

    python experiments/cliff_walking.py
"""

from __future__ import annotations

import pathlib

import numpy as np
import rich
import tyro
from episodes import (
    FIGURES,
    draw_band,
    greedy_path_length,
    mean_interval,
    measured,
    new_figure,
    per_episode,
    save,
    train_seeds,
)
from rich.table import Table

import jaxrl
from jaxrl.analysis.plot import PALETTE
from jaxrl.types import Agent

LAST = 100  # episodes at the end that the table averages over


def main(
    seeds: int = 500,
    episodes: int = 500,
    steps: int = 25_000,
    smoothed_over: int = 10,
    out: pathlib.Path = FIGURES / "cliff_walking.png",
) -> dict[str, dict[str, np.ndarray]]:
    """Online return and final greedy path of three agents beside a cliff, over many seeds.

    Args:
      seeds: how many runs of each agent.
      episodes: episodes of each run.
      steps: environment steps of each run, enough for its episodes (an error says so where they are not).
      smoothed_over: the figure's moving average is over this many episodes.
      out: where to write the figure.

    Returns:
      by agent: `returns`, the sum of rewards, `[S, episodes]`, and `path`, the greedy path's steps after the last
      episode, `[S]` (one more than there are states where it does not arrive).
    """
    env = jaxrl.make("jaxrl/Cliff-v0")
    numbers = {}
    for name, agent in agents().items():
        watched = measured(agent, "path_length", greedy_path_length(env))
        names = ("episode_return", "path_length")
        _, metrics = train_seeds(watched, env, num_steps=steps, seeds=seeds, names=names)
        returns, paths = (per_episode(metrics, metric, episodes) for metric in names)
        numbers[name] = {"returns": returns, "path": paths[:, -1]}
    rich.print(tabulate(numbers, env.spec.obs_space.n))
    save(draw(numbers, smoothed_over), out)
    return numbers


def agents() -> dict[str, Agent]:
    """The three, by name, with the book's constants."""
    common = {"learning_rate": 0.5, "gamma": 1.0, "epsilon_start": 0.1, "epsilon_final": 0.1}
    return {
        "Sarsa": jaxrl.sarsa(**common),
        "expected Sarsa": jaxrl.expected_sarsa(**common),
        "Q-learning": jaxrl.q_learning(**common),
    }


def tabulate(numbers: dict, num_states: int) -> Table:
    seeds, episodes = numbers["Sarsa"]["returns"].shape
    table = Table(title=f"cliff walking, {seeds:,} seeds: after {episodes} episodes, share of seeds by greedy path")
    table.add_column("agent")
    for name in (f"return, last {min(LAST, episodes)}", "13 steps", "15 steps", "17 steps", "another", "no end"):
        table.add_column(name, justify="right")
    for name, found in numbers.items():
        mean, low, high = mean_interval(found["returns"][:, -LAST:].mean(axis=1))
        shares = [np.mean(found["path"] == length) for length in (13, 15, 17)]
        never = np.mean(found["path"] > num_states)
        cells = (f"{share:.1%}" for share in (*shares, max(0.0, 1 - sum(shares) - never), never))
        table.add_row(name, f"{mean:.1f} ({low:.1f} to {high:.1f})", *cells)
    return table


def draw(numbers: dict, smoothed_over: int):
    seeds, episodes = numbers["Sarsa"]["returns"].shape
    window = np.ones(min(smoothed_over, episodes)) / min(smoothed_over, episodes)
    title = f"Cliff walking, {seeds:,} seeds: mean and 95 % interval, moving average of {len(window)} episodes"
    figure, (axes,) = new_figure(title)
    for (name, found), color in zip(numbers.items(), PALETTE, strict=False):
        smooth = np.apply_along_axis(np.convolve, 1, found["returns"], window, mode="valid")  # [S, episodes - w + 1]
        draw_band(axes, np.arange(len(window), episodes + 1), *mean_interval(smooth), name, color)
    axes.set(xlabel="episode", ylabel="sum of rewards during an episode", ylim=(-100, 0))
    axes.margins(x=0.01)
    axes.legend(frameon=False, fontsize=10, loc="lower right")
    return figure


if __name__ == "__main__":
    tyro.cli(main)
