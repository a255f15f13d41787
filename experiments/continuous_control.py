"""DDPG, TD3 and SAC beside each other: return by environment steps, and by time.

Pendulum-v1 of gymnax, and three of Brax's environments. The networks, the batch, the replay and the number of gradient
steps are the same for all. On a CPU halfcheetah's own steps take most of its time, elsewhere the gradient steps do;
Brax's environments therefore have small networks and a gradient step for each eight steps, which two cores get through
in an hour and a quarter. `--scale` lengthens or shortens all runs.

    python experiments/continuous_control.py
"""

import pathlib
from typing import Literal

import numpy as np
from common import FIGURES, folder_of, on_all_cores, show_comparison

import jaxrl

SMALL = {"hidden_sizes": (64, 64), "actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3}
MANY = {
    "hidden_sizes": (64, 64), "num_envs": 64, "replay_ratio": 0.125, "batch_size": 128, "replay_size": 2**18,
    "warmup_steps": 8_192, "actor_learning_rate": 6e-4, "critic_learning_rate": 6e-4, "normalize_observations": True,
}  # fmt: skip
ENTROPY = {"target_entropy": -0.5, "initial_temperature": 0.1}  # Brax's rewards are small
BRAX = MANY | {"eval_episodes": 4, "env_params": {"reset_pool": 64}}
FAR = {"gamma": 0.997}  # a hopper falls or stands by what it did a few hundred steps before
PROBLEMS = {  # the environment steps, and of all agents and of SAC alone what of `sweep`'s arguments is not the default
    "Pendulum-v1": (30_000, SMALL, {}),
    "brax/halfcheetah": (300_000, BRAX, ENTROPY),
    "brax/hopper": (600_000, BRAX | FAR, ENTROPY),
    "brax/reacher": (200_000, BRAX, ENTROPY),
}
AGENTS = {"DDPG": jaxrl.ddpg, "TD3": jaxrl.td3, "SAC": jaxrl.sac}


def main(
    seeds: int = 16, scale: float = 1.0, envs: tuple[Literal[tuple(PROBLEMS)], ...] = tuple(PROBLEMS),
    runs: pathlib.Path | None = None, out: pathlib.Path = FIGURES / "continuous_control.png",
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Learning curves of three agents for continuous actions, over many seeds.

    Args:
      seeds: how many runs of each.
      scale: the environment steps of each environment are multiplied by this.
      envs: keys of `PROBLEMS`.
      runs: a folder to keep the runs in, from which the same command goes on after an interruption.
      out: where to write the figure.

    Returns:
      by environment and agent: the greedy return at the end, `[S]`.
    """
    results = {env: {} for env in envs}
    for env in envs:
        full, of_all, of_sac = PROBLEMS[env]
        steps = round(full * scale)
        for name, constructor in AGENTS.items():
            results[env][name] = jaxrl.sweep(
                constructor, env, num_steps=steps, seeds=seeds, progress=True, eval_every=steps // 20,
                out=folder_of(runs, f"{env}, {name}"), **of_all | (of_sac if name == "SAC" else {}),
            )  # fmt: skip
    return show_comparison(f"Continuous control, {seeds:,} seeds", results, out, by_time=True)


if __name__ == "__main__":
    on_all_cores(main)
