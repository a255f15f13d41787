"""Maximisation bias: Q-learning goes where noise looks good, and double Q-learning hardly does.

Figure 6.5 of Sutton and Barto 2018, example 6.7: the share of episodes in which the agent, in state A, goes left, to
where rewards are -0.1 on average but noisy. The best policy never would, and exploring with epsilon = 0.1 goes left in
5 % of the episodes. An episode went left exactly where it has two steps, and by that it is counted.

Here A has as many actions as B, half of which go left, where the book's A has one of either kind: at a half a random
policy is the same, but the maximum is over more estimates.

    python experiments/maximization_bias.py
"""

import pathlib

import numpy as np
import tyro
from common import FIGURES, show, train_seeds

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import GREY, PALETTE, draw_bands, new_figure
from jaxrl.analysis.statistics import mean_interval, per_episode

EPSILON = 0.1
OPTIMUM = 100 * EPSILON / 2  # per cent left of a policy that goes right unless it explores
SHOWN = (1, 10, 20, 50, 100, 200, 300)  # the table's episodes
AGENTS = {"Q-learning": jaxrl.q_learning, "double Q-learning": jaxrl.double_q_learning}


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
    env, left = jaxrl.make("jaxrl/MaximizationBias-v0"), {}
    for name, constructor in AGENTS.items():
        agent = constructor(learning_rate=0.1, gamma=1.0, epsilon_start=EPSILON, epsilon_final=EPSILON)  # the book's
        steps = 2 * episodes  # enough, for no episode has more than two
        _, metrics = train_seeds(agent, env, num_steps=steps, seeds=seeds, names=("episode_length",))
        left[name] = per_episode(metrics, "episode_length", episodes) == 2
    bands = {name: mean_interval(100.0 * went) for name, went in left.items()}

    shown = (i for i in range(1, episodes + 1) if i in (*SHOWN, episodes))
    rows = [
        (i, *("{:.1f} ({:.1f} to {:.1f})".format(*(x[i - 1] for x in band)) for band in bands.values())) for i in shown
    ]
    title = f"left from A in % of {seeds:,} seeds (95 % interval); the optimum is {OPTIMUM:g} %"
    found = table(title, ("episode", *left), rows, text=())
    figure, (axes,) = new_figure(
        f"Maximisation bias, {seeds:,} seeds: mean and 95 % interval",
        xlabel="episode",
        ylabel="left actions from A (%)",
    )
    draw_bands(axes, np.arange(1, episodes + 1), bands, (PALETTE[1], PALETTE[0]))
    axes.axhline(OPTIMUM, color=GREY, ls="--", lw=1.2, label=f"optimum, {OPTIMUM:g} %")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False, fontsize=10)
    show(found, figure, out)
    return left


if __name__ == "__main__":
    tyro.cli(main)
