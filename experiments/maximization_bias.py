"""Maximisation bias: Q-learning goes where noise looks good, and double Q-learning hardly does.

Figure 6.5 of Sutton and Barto 2018, example 6.7: the share of episodes in which the agent, in state A, goes left, to
where rewards are -0.1 on average but noisy. The best policy never would, and exploring with epsilon = 0.1 goes left in
5 % of the episodes. An episode went left exactly where it has two steps, and by that it is counted.

Here A has as many actions as B, half of which go left, where the book's A has one of either kind: at a half a random
policy is the same, but the maximum is over more estimates.

    python experiments/maximization_bias.py
"""

from __future__ import annotations

import pathlib

import numpy as np
import rich
import tyro
from episodes import FIGURES, GREY, draw_band, mean_interval, new_figure, per_episode, save, train_seeds
from rich.table import Table

import jaxrl
from jaxrl.analysis.plot import PALETTE
from jaxrl.types import Agent

EPSILON = 0.1
OPTIMUM = 100 * EPSILON / 2  # per cent left of a policy that goes right unless it explores
SHOWN = (1, 10, 20, 50, 100, 200, 300)  # the table's episodes


def main(
    seeds: int = 10_000, episodes: int = 300, out: pathlib.Path = FIGURES / "maximization_bias.png"
) -> dict[str, np.ndarray]:
    """How often Q-learning and double Q-learning go left, over many seeds.

    Args:
      seeds: how many runs of each agent.
      episodes: episodes of each run.
      out: where to write the figure.

    Returns:
      by agent: whether each episode went left, bool `[S, episodes]`.
    """
    env = jaxrl.make("jaxrl/MaximizationBias-v0")
    left = {}
    for name, agent in agents().items():
        steps = 2 * episodes  # enough, for no episode has more than two
        _, metrics = train_seeds(agent, env, num_steps=steps, seeds=seeds, names=("episode_length",))
        left[name] = per_episode(metrics, "episode_length", episodes) == 2
    rich.print(tabulate(left))
    save(draw(left), out)
    return left


def agents() -> dict[str, Agent]:
    """The two, by name, with the book's constants."""
    common = {"learning_rate": 0.1, "gamma": 1.0, "epsilon_start": EPSILON, "epsilon_final": EPSILON}
    return {"Q-learning": jaxrl.q_learning(**common), "double Q-learning": jaxrl.double_q_learning(**common)}


def tabulate(left: dict[str, np.ndarray]) -> Table:
    seeds, episodes = left["Q-learning"].shape
    table = Table(title=f"left from A in % of {seeds:,} seeds (95 % interval); the optimum is {OPTIMUM:g} %")
    table.add_column("episode", justify="right")
    columns = []
    for name, went in left.items():
        table.add_column(name, justify="right")
        columns.append(zip(*mean_interval(100.0 * went), strict=True))
    for episode, row in enumerate(zip(*columns, strict=True), start=1):
        if episode in (*SHOWN, episodes):
            table.add_row(str(episode), *(f"{mean:.1f} ({low:.1f} to {high:.1f})" for mean, low, high in row))
    return table


def draw(left: dict[str, np.ndarray]):
    seeds, episodes = left["Q-learning"].shape
    figure, (axes,) = new_figure(f"Maximisation bias, {seeds:,} seeds: mean and 95 % interval")
    for (name, went), color in zip(left.items(), (PALETTE[1], PALETTE[0]), strict=True):
        draw_band(axes, np.arange(1, episodes + 1), *mean_interval(100.0 * went), name, color)
    axes.axhline(OPTIMUM, color=GREY, ls="--", lw=1.2, label=f"optimum, {OPTIMUM:g} %")
    axes.set(xlabel="episode", ylabel="left actions from A (%)", ylim=(0, 100))
    axes.margins(x=0.01)
    axes.legend(frameon=False, fontsize=10)
    return figure


if __name__ == "__main__":
    tyro.cli(main)
