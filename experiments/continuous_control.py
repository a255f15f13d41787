"""DDPG, TD3 and SAC beside each other: return by environment steps, and by time.

Pendulum-v1 of gymnax, and three of Brax's environments. The networks, the batch, the replay and the number of gradient
steps are the same for all; an agent's own settings are its defaults. Brax's take many steps, which is the work of an
accelerator: `--scale` shortens all runs.

    python experiments/continuous_control.py
"""

from __future__ import annotations

import pathlib

import numpy as np
import rich
import tyro
from comparison import Contender, compare, draw, final_returns, tabulate
from episodes import FIGURES, save, use_all_cores

import jaxrl

SMALL = {"hidden_sizes": (64, 64), "actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3}
LARGE = {
    "hidden_sizes": (256, 256),
    "num_envs": 16,
    "replay_ratio": 0.25,
    "replay_size": 2**18,
    "warmup_steps": 4_096,
    "actor_learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
}
STEPS = {"Pendulum-v1": 30_000, "brax/halfcheetah": 500_000, "brax/hopper": 500_000, "brax/reacher": 200_000}
AGENTS = {"DDPG": jaxrl.ddpg, "TD3": jaxrl.td3, "SAC": jaxrl.sac}


def main(
    seeds: int = 16,
    scale: float = 1.0,
    envs: tuple[str, ...] = tuple(STEPS),
    out: pathlib.Path = FIGURES / "continuous_control.png",
) -> dict[str, dict[str, np.ndarray]]:
    """Learning curves of three agents for continuous actions, over many seeds.

    Args:
      seeds: how many runs of each.
      scale: the environment steps of each environment are multiplied by this.
      envs: keys of `STEPS`.
      out: where to write the figure.

    Returns:
      by environment and agent: the greedy return at the end, `[S]`.
    """
    runs = {}
    for env in envs:
        settings = LARGE if env.startswith("brax/") else SMALL
        contenders = {name: Contender(agent, settings) for name, agent in AGENTS.items()}
        runs |= compare(contenders, {env: round(STEPS[env] * scale)}, seeds=seeds)
    rich.print(tabulate(f"Continuous control, {seeds:,} seeds: IQM (95 % interval)", runs))
    save(draw(f"Continuous control, {seeds:,} seeds: IQM and 95 % interval", runs, by_time=True), out)
    return final_returns(runs)


if __name__ == "__main__":
    use_all_cores()
    tyro.cli(main)
