"""A car in a valley whose engine is too weak: why DDPG there needs noise that remembers.

In MountainCarContinuous-v0 the flag gives 100, and every action costs a tenth of its square. Noise that is drawn anew
at each step pushes the car to and fro a hundred times while it swings once: the pushes cancel, the car stays in the
valley, no return is ever above 0, and the agent learns that the best is to do nothing. Ornstein-Uhlenbeck noise pushes
the same way for as long as a swing takes. Both kinds have the same standard deviation.

    python experiments/exploration_noise.py
"""

import pathlib

import numpy as np
from common import FIGURES, on_all_cores, show_comparison

import jaxrl

COMMON = {
    "hidden_sizes": (64, 64),
    "batch_size": 64,
    "noise_scale": 0.8,
    "noise_final": 0.1,
    "noise_decay_steps": 40_000,
}
NOISES = {
    "Ornstein-Uhlenbeck": {"noise": "ornstein_uhlenbeck", "noise_theta": 0.05},
    "Gaussian": {"noise": "gaussian"},
}
ENV = "MountainCarContinuous-v0"


def main(
    seeds: int = 16, steps: int = 50_000, out: pathlib.Path = FIGURES / "exploration_noise.png"
) -> dict[str, dict[str, np.ndarray]]:
    """Learning curves of DDPG with correlated and with uncorrelated noise, over many seeds.

    Args:
      seeds: how many runs of each.
      steps: environment steps of each run.
      out: where to write the figure.

    Returns:
      by environment and noise: the greedy return at the end, `[S]`.
    """
    runs = {
        name: jaxrl.sweep(
            jaxrl.ddpg, ENV, num_steps=steps, seeds=seeds, progress=True, eval_every=steps // 20, **COMMON, **noise
        )
        for name, noise in NOISES.items()
    }
    return show_comparison(f"DDPG by its noise, {seeds:,} seeds", {ENV: runs}, out)


if __name__ == "__main__":
    on_all_cores(main)
