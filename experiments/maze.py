"""A maze with traps: after how many episodes four agents know the shortest way.

An agent knows it where its greedy path from the start is as short as planning's, which is measured after each episode:
for the *first time*, and *for good*, from which episode it stays so to the end of training. Q-learning, whose targets
are greedy, always reaches the treasure. Sarsa learns the values of a policy that explores, beside traps, and in some
seeds that keeps it away. Traces find a way first, within a few episodes in the luckiest seeds; but in others they too
stay away for long, or keep to a way of 8 steps that they found early, where there is one of 6.

The book has no such figure; the agents are those of Sutton and Barto 2018, sections 6.4, 6.5 and 12.7. A second figure
draws what Q-learning has learned.

    python experiments/maze.py
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
    optimal_steps,
    per_episode,
    save,
    train_seeds,
)
from rich.table import Table

import jaxrl
from jaxrl.analysis.plot import PALETTE, plot_grid
from jaxrl.types import Agent

GAMMA = 0.9


def main(
    seeds: int = 256,
    episodes: int = 100,
    out: pathlib.Path = FIGURES / "maze.png",
    policy_out: pathlib.Path = FIGURES / "maze_policy.png",
) -> dict[str, dict[str, np.ndarray]]:
    """Episodes until the greedy path through the maze is a shortest one, of four agents and many seeds.

    Args:
      seeds: how many runs of each agent.
      episodes: episodes of each run.
      out: where to write the figure of the learning curves.
      policy_out: where to write the figure of the values and the greedy policy.

    Returns:
      by agent: `arrives` and `optimal`, `[S, episodes]`, whether the greedy path ends at the treasure after each
      episode, and is one of the shortest; `first` and `for_good`, `[S]`, the episode after which it is one of the
      shortest for the first time, and for good (infinite where never).
    """
    env = jaxrl.make("jaxrl/Maze-v0")
    steps = episodes * env.spec.max_steps  # however long the episodes are, these are enough
    optimum = optimal_steps(env, GAMMA)
    numbers = {}
    for name, agent in agents().items():
        watched = measured(agent, "path_length", greedy_path_length(env))
        states, metrics = train_seeds(watched, env, num_steps=steps, seeds=seeds, names=("path_length",))
        lengths = per_episode(metrics, "path_length", episodes)
        arrives, optimal = lengths <= env.spec.obs_space.n, lengths == optimum
        numbers[name] = {"arrives": arrives, "optimal": optimal} | when_true(optimal)
        if name == "Q-learning":
            plot_grid(env.spec, states.q[0], policy_out, f"Q-learning, seed 0, after {steps:,} steps")
    rich.print(tabulate(numbers, seeds))
    save(draw(numbers, seeds), out)
    print(f"figure: {policy_out}")
    return numbers


def agents() -> dict[str, Agent]:
    """The four, by name, with the same step size, discount and exploration."""
    common = {"learning_rate": 0.1, "gamma": GAMMA, "epsilon_start": 0.1, "epsilon_final": 0.1}
    return {
        "Q-learning": jaxrl.q_learning(**common),
        "Sarsa": jaxrl.sarsa(**common),
        "Sarsa(0.9), accumulating": jaxrl.sarsa_lambda(lambda_=0.9, traces="accumulating", **common),
        "Sarsa(0.9), replacing": jaxrl.sarsa_lambda(lambda_=0.9, traces="replacing", **common),
    }


def when_true(known: np.ndarray) -> dict[str, np.ndarray]:
    """The episode after which `known`, bool `[S, episodes]`, is true for the first time, and for good."""
    first = np.where(known.any(axis=1), 1.0 + known.argmax(axis=1), np.inf)
    last_wrong = np.where(known, 0, np.arange(1, known.shape[1] + 1)).max(axis=1)
    return {"first": first, "for_good": np.where(known[:, -1], last_wrong + 1.0, np.inf)}


def tabulate(numbers: dict, seeds: int) -> Table:
    table = Table(title=f"episodes until the greedy path is a shortest one: median (middle 90 %) of {seeds:,} seeds")
    for name in ("agent", "first time", "for good", "shortest at the end", "arrives at the end"):
        table.add_column(name, justify="left" if name == "agent" else "right")
    for name, found in numbers.items():
        # Of whole episodes, and without interpolation, which knows no mean of a number and infinity.
        times = [np.quantile(found[x], (0.5, 0.05, 0.95), method="inverted_cdf") for x in ("first", "for_good")]
        cells = (f"{median:g} ({low:g} to {high:g})".replace("inf", "∞") for median, low, high in times)
        table.add_row(name, *cells, *(f"{found[x][:, -1].mean():.1%}" for x in ("optimal", "arrives")))
    return table


def draw(numbers: dict, seeds: int):
    figure, panels = new_figure(f"A 4 x 4 maze with traps: the greedy path of {seeds:,} seeds", columns=2)
    for axes, kind, title in zip(
        panels, ("arrives", "optimal"), ("ends at the treasure", "and is a shortest one"), strict=True
    ):
        for (name, found), color in zip(numbers.items(), PALETTE, strict=False):
            bands = mean_interval(100.0 * found[kind])
            draw_band(axes, np.arange(1, len(bands[0]) + 1), *bands, name, color)
        axes.set_title(title, fontsize=11)
        axes.set(xlabel="episode", ylim=(0, 101))
        axes.margins(x=0.01)
    panels[0].set_ylabel("seeds (%), with 95 % interval")
    panels[0].legend(frameon=False, fontsize=10, loc="lower right")
    return figure


if __name__ == "__main__":
    tyro.cli(main)
