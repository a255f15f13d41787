"""What an agent for continuous actions gains by its replay: SAC with priorities, TD3 with hindsight.

SAC learns Pendulum-v1 from transitions drawn uniformly, and in proportion to the critics' error. TD3 learns to bring
the tip of an arm to goals that say nothing until they are reached; hindsight learns from the goals that were.

    python experiments/off_policy_replay.py
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
ARM = SMALL | {"gamma": 0.95, "noise_scale": 0.2}
STUDIES = {
    "Pendulum-v1": (
        20_000,
        {
            "SAC, uniform": Contender(jaxrl.sac, SMALL),
            "SAC, prioritized": Contender(jaxrl.sac, SMALL | {"replay": "prioritized", "priority_beta_steps": 20_000}),
        },
    ),
    "jaxrl/ArmReach-v0": (
        30_000,
        {
            "TD3": Contender(jaxrl.td3, ARM),
            "TD3 with hindsight": Contender(jaxrl.td3, ARM | {"hindsight": "future"}),
        },
    ),
}


def main(
    seeds: int = 16, scale: float = 1.0, out: pathlib.Path = FIGURES / "off_policy_replay.png"
) -> dict[str, dict[str, np.ndarray]]:
    """Learning curves with different replays, over many seeds.

    Args:
      seeds: how many runs of each.
      scale: the environment steps of each run are multiplied by this.
      out: where to write the figure.

    Returns:
      by environment and agent: the greedy return at the end, `[S]`.
    """
    runs = {}
    for env, (steps, contenders) in STUDIES.items():
        runs |= compare(contenders, {env: round(steps * scale)}, seeds=seeds)
    rich.print(tabulate(f"Replays, {seeds:,} seeds: IQM (95 % interval)", runs))
    save(draw(f"Replays, {seeds:,} seeds: IQM and 95 % interval", runs), out)
    return final_returns(runs)


if __name__ == "__main__":
    use_all_cores()
    tyro.cli(main)
