"""DDPG on Pendulum-v1 with target networks that follow softly, and with ones that are replaced now and then.

The settings are well-worn ones: both learning rates 0.001, a discount of 0.9, a memory of 10,000, batches of 32, and
exploring with a variance of 3 (the actions go from -2 to 2) that shrinks by a factor of 0.9998 at each step. Soft: each
step moves both targets by a hundredth. Hard: the actor's is replaced every 600 steps and the critic's every 500.

    python experiments/ddpg_targets.py
"""

import math
import pathlib

import numpy as np
from common import FIGURES, on_all_cores, show_comparison

import jaxrl

STEPS = 40_000
STD = math.sqrt(3) / 2  # of the noise, where the actions' bounds are [-1, 1]
COMMON = {
    "actor_learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "gamma": 0.9,
    "replay_size": 10_000,
    "batch_size": 32,
    "hidden_sizes": (64, 64),
    "noise": "gaussian",
    "noise_schedule": "exponential",
    "noise_scale": STD,
    "noise_final": STD * 0.9998 ** (STEPS / 2),  # the variance by 0.9998 a step, so the deviation by its root
    "noise_decay_steps": STEPS,
}
UPDATES = {
    "soft, 0.01": {"tau": 0.01},
    "hard, 600 and 500": {"tau": 1.0, "target_update_every": 500, "actor_target_update_every": 600},
}


def main(
    seeds: int = 32, steps: int = STEPS, out: pathlib.Path = FIGURES / "ddpg_targets.png"
) -> dict[str, dict[str, np.ndarray]]:
    """Learning curves of DDPG with soft and with hard target updates, over many seeds.

    Args:
      seeds: how many runs of each.
      steps: environment steps of each run.
      out: where to write the figure.

    Returns:
      by environment and kind of update: the greedy return at the end, `[S]`.
    """
    runs = {
        name: jaxrl.sweep(
            jaxrl.ddpg, "Pendulum-v1", num_steps=steps, seeds=seeds, progress=True, eval_every=steps // 20,
            **COMMON, **update,
        )
        for name, update in UPDATES.items()
    }  # fmt: skip
    return show_comparison(f"DDPG by its target networks, {seeds:,} seeds", {"Pendulum-v1": runs}, out)


if __name__ == "__main__":
    on_all_cores(main)
