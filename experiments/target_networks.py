"""Target networks: without one DQN chases its own tail; a copy at times, or a slow average, holds the target still.

CartPole-v1 with no target network, one that is a copy made every 500 steps (hard; Mnih et al. 2015), and one that moves
a little towards the online network in each step (soft; Lillicrap et al. 2016). The loss is a mean over each log
interval. A small one is no aim by itself: it is small, too, where values are.

    python experiments/target_networks.py
"""

import pathlib
from typing import Literal

import numpy as np
from common import FIGURES, by_name, on_all_cores, show

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import curves, draw_bands, new_figure
from jaxrl.types import Agent

TARGETS = {
    "none": {"target_network": False},
    "hard": {"target_update_every": 500},
    "soft": {"target_update_every": 1, "tau": 0.005},
}


def main(
    seeds: int = 32, steps: int = 50_000, eval_episodes: int = 10,
    targets: tuple[Literal[tuple(TARGETS)], ...] = tuple(TARGETS),
    out: pathlib.Path = FIGURES / "target_networks.png",
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Loss and return of DQN with no, a hard and a soft target network, over many seeds.

    Args:
      seeds: how many runs of each agent.
      steps: environment steps of each run.
      eval_episodes: greedy episodes of each evaluation.
      targets: keys of `TARGETS`.
      out: where to write the figure.

    Returns:
      by target network: `loss` and `q_mean`, the mean value of a batch's actions, `[S, intervals]`, and `eval_return`,
      `[S]`, of the last greedy evaluation.
    """
    results = jaxrl.sweep(
        agent, "CartPole-v1", num_steps=steps, seeds=seeds, progress=True, eval_episodes=eval_episodes,
        target=list(targets),
    )  # fmt: skip
    title = f"CartPole-v1, {seeds:,} seeds: IQM (95 % interval) at the end"
    header = ("target network", "loss", "mean Q", "training return", "greedy return")
    columns = [results.final(name) for name in ("loss", "q_mean", "episode_return", "eval_return")]
    figure, panels = new_figure(
        f"DQN on CartPole-v1 by target network, {seeds:,} seeds: IQM and 95 % interval", ("", "")
    )
    for axes, metric, ylabel in zip(panels, ("loss", "episode_return"), ("loss", "return per episode"), strict=True):
        draw_bands(axes, results.steps, curves(results, targets, metric))
        axes.set_ylabel(ylabel)
    panels[0].set_yscale("log", nonpositive="mask")
    panels[0].legend(frameon=False, fontsize=10, loc="upper left")
    show(table(title, header, zip(targets, *columns, strict=True)), figure, out)
    return by_name(results, targets, "loss", "q_mean")


def agent(*, target: str) -> Agent:
    """DQN with a target network of `TARGETS`."""
    return jaxrl.dqn(learning_rate=1e-3, batch_size=64, replay_size=20_000, loss="squared", **TARGETS[target])


if __name__ == "__main__":
    on_all_cores(main)
