"""Overestimation: the greatest value that natural DQN expects rises above what any policy can get, double DQN's less.

A pendulum with 11 torques, whose rewards are at most 0, and so are the true values of all states: where the maximum of
Q over the actions is above 0, it is too high. The left panel has it against environment steps, at the states visited,
as the mean over each log interval. The right one has how far it is above what the states were worth to the policy that
visited them, the mean reward divided by 1 - gamma: on average over the states of one long episode, V = r + gamma V.
That counts the random actions too, so that even a true maximum would be a little above it.

Van Hasselt, Guez and Silver 2016, section 3, have such curves of Atari games.

    python experiments/overestimation.py
"""

from __future__ import annotations

import pathlib

import numpy as np
import rich
import tyro
from episodes import FIGURES, GREY, draw_curves, final_cell, new_figure, reporting, save, use_all_cores
from rich.table import Table

import jaxrl
from jaxrl import Results
from jaxrl.networks import make_q_network
from jaxrl.types import Agent, Array, PyTree, Transition

GAMMA = 0.9
HIDDEN = (20,)
NAMES = ("natural", "double")


def main(
    seeds: int = 64, steps: int = 25_000, log_every: int = 250, out: pathlib.Path = FIGURES / "overestimation.png"
) -> dict[str, dict[str, np.ndarray]]:
    """The greatest action values of natural and double DQN on a pendulum, over many seeds.

    Args:
      seeds: how many runs of each agent.
      steps: environment steps of each run.
      log_every: environment steps that each point of a curve is the mean of.
      out: where to write the figure.

    Returns:
      by agent: `max_q`, the mean over each interval of max_a Q(s, a), and `worth`, what these states were worth;
      `[S, intervals]`.
    """
    results = jaxrl.sweep(
        watched, "Pendulum-v1", num_steps=steps, seeds=seeds, log_every=log_every, eval_every=steps, eval_episodes=1,
        env_params={"discretize_actions": 11, "scale_rewards": 0.1, "max_steps_in_episode": 2 * steps},
        double=[False, True], progress=True,
    )  # fmt: skip
    rich.print(tabulate(results))
    save(draw(results), out)
    names = ("max_q", "worth")
    return {agent: {name: results.metrics[name][i] for name in names} for i, agent in enumerate(NAMES)}


def watched(*, double: bool) -> Agent:
    """DQN that reports the values of the states it visits."""
    agent = jaxrl.dqn(
        double=double, gamma=GAMMA, learning_rate=5e-3, hidden_sizes=HIDDEN, batch_size=32, replay_size=3_000,
        warmup_steps=3_000, epsilon_decay_steps=3_000, epsilon_final=0.1, target_update_every=200, loss="squared",
    )  # fmt: skip

    def max_q(state: PyTree, trajectory: Transition) -> Array:
        network = make_q_network("overestimation", state.spec, "mlp", HIDDEN, "relu")
        return network.apply(state.params, trajectory.obs).max(axis=-1).mean()

    def worth(state: PyTree, trajectory: Transition) -> Array:
        return trajectory.reward.mean() / (1 - GAMMA)

    def excess(state: PyTree, trajectory: Transition) -> Array:
        return max_q(state, trajectory) - worth(state, trajectory)

    for name, function in {"max_q": max_q, "worth": worth, "excess": excess}.items():
        agent = reporting(agent, name, function)
    return agent


def tabulate(results: Results) -> Table:
    table = Table(title=f"pendulum, {results.num_seeds:,} seeds: last tenth of training, IQM (95 % interval)")
    for name in ("DQN", "max Q", "less the states' worth", "above 0"):
        table.add_column(name, justify="left" if name == "DQN" else "right")
    max_q, excess = results.final("max_q"), results.final("excess")
    for i, name in enumerate(NAMES):
        table.add_row(name, final_cell(max_q[i]), final_cell(excess[i]), f"{np.mean(max_q[i] > 0):.0%} of seeds")
    return table


def draw(results: Results):
    title = f"Overestimation on a pendulum, {results.num_seeds:,} seeds: IQM and 95 % interval"
    figure, panels = new_figure(title, columns=2, sharey=False)
    for axes, metric, ylabel in zip(
        panels, ("max_q", "excess"), ("max Q of the states visited", "max Q less their worth"), strict=True
    ):
        draw_curves(axes, results, NAMES, metric)
        axes.axhline(0, color=GREY, ls="--", lw=1.2, label="the greatest true value" if metric == "max_q" else None)
        axes.set_ylabel(ylabel)
    panels[1].set_ylim(-0.3, 4)  # before the first gradient step it is higher
    panels[0].legend(frameon=False, fontsize=10)
    return figure


if __name__ == "__main__":
    use_all_cores()
    tyro.cli(main)
