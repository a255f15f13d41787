"""What an agent for continuous actions gains by its replay: SAC with priorities, TD3 with hindsight.

SAC learns Pendulum-v1 from transitions drawn uniformly, and in proportion to the critics' error. TD3 learns to bring
the tip of an arm to goals that say nothing until they are reached; hindsight learns from the goals that were.

    python experiments/off_policy_replay.py
"""

import pathlib

import numpy as np
from common import FIGURES, on_all_cores, show_comparison

import jaxrl

SMALL = {"hidden_sizes": (64, 64), "actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3}
ARM = SMALL | {"gamma": 0.95, "noise_scale": 0.2}
STUDIES = {
    "Pendulum-v1": (20_000, {
        "SAC, uniform": (jaxrl.sac, SMALL),
        "SAC, prioritized": (jaxrl.sac, SMALL | {"replay": "prioritized", "priority_beta_steps": 20_000}),
    }),
    "jaxrl/ArmReach-v0": (30_000, {
        "TD3": (jaxrl.td3, ARM),
        "TD3 with hindsight": (jaxrl.td3, ARM | {"hindsight": "future"}),
    }),
}  # fmt: skip


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
    runs = {env: {} for env in STUDIES}
    for env, (full, agents) in STUDIES.items():
        steps = round(full * scale)
        for name, (constructor, hyper_parameters) in agents.items():
            runs[env][name] = jaxrl.sweep(
                constructor, env, num_steps=steps, seeds=seeds, progress=True, eval_every=steps // 20,
                **hyper_parameters,
            )  # fmt: skip
    return show_comparison(f"Replays, {seeds:,} seeds", runs, out)


if __name__ == "__main__":
    on_all_cores(main)
