"""DDPG, TD3 and SAC beside each other: return by environment steps, and by time.

Pendulum-v1 of gymnax, and three of Brax's environments. The networks, the batch, the replay and the number of gradient
steps are the same for all. On a CPU halfcheetah's own steps take most of its time, elsewhere the gradient steps do;
Brax's environments therefore have small networks and a gradient step for each eight steps, which two cores get through
in an hour and a quarter. `--scale` lengthens or shortens all runs.

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

PENDULUM = {"hidden_sizes": (64, 64), "actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3}
BRAX = {
    "hidden_sizes": (64, 64),
    "num_envs": 64,
    "replay_ratio": 0.125,
    "batch_size": 128,
    "replay_size": 2**18,
    "warmup_steps": 8_192,
    "actor_learning_rate": 6e-4,
    "critic_learning_rate": 6e-4,
    "normalize_observations": True,
}
SETTINGS = {
    "Pendulum-v1": PENDULUM,
    "brax/halfcheetah": BRAX,
    "brax/hopper": BRAX | {"gamma": 0.997},  # which falls or stands by what it does a few hundred steps before
    "brax/reacher": BRAX,
}
ENTROPY = {"target_entropy": -0.5, "initial_temperature": 0.1}  # of SAC: Brax's rewards are small
STEPS = {"Pendulum-v1": 30_000, "brax/halfcheetah": 300_000, "brax/hopper": 600_000, "brax/reacher": 200_000}
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
        brax = env.startswith("brax/")
        contenders = {name: Contender(agent, SETTINGS[env]) for name, agent in AGENTS.items()}
        if brax:
            contenders["SAC"] = Contender(jaxrl.sac, SETTINGS[env] | ENTROPY)
        runs |= compare(
            contenders, {env: round(STEPS[env] * scale)}, seeds=seeds, eval_episodes=4 if brax else 10,
            env_params={"reset_pool": 64} if brax else None,
        )  # fmt: skip
    rich.print(tabulate(f"Continuous control, {seeds:,} seeds: IQM (95 % interval)", runs))
    save(draw(f"Continuous control, {seeds:,} seeds: IQM and 95 % interval", runs, by_time=True), out)
    return final_returns(runs)


if __name__ == "__main__":
    use_all_cores()
    tyro.cli(main)
