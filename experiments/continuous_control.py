"""DDPG, TD3 and SAC beside each other: return by environment steps, and by time.

Pendulum-v1 of gymnax, and three of Brax's environments. The networks, the batch, the replay and the number of gradient
steps are the same for all. On a CPU halfcheetah's own steps take most of its time, elsewhere the gradient steps do;
Brax's environments therefore have small networks and a gradient step for each eight steps, which two cores get through
in an hour and a quarter. `--scale` lengthens or shortens all runs.

    python experiments/continuous_control.py
"""

from __future__ import annotations

import pathlib
from typing import Any, Literal, NamedTuple

import numpy as np
from common import FIGURES, folder_of, on_all_cores, show

import jaxrl
from jaxrl.analysis.compare import comparison_table, plot_environments


class Problem(NamedTuple):
    """An environment: its steps, what of all agents and of SAC alone is not the default, arguments of `make`, and the
    greedy episodes of an evaluation.
    """

    steps: int
    hyper_parameters: dict[str, Any]
    of_sac: dict[str, Any]
    env_params: dict[str, Any]
    eval_episodes: int


SMALL = {"hidden_sizes": (64, 64), "actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3}
MANY = {
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
ENTROPY = {"target_entropy": -0.5, "initial_temperature": 0.1}  # Brax's rewards are small
POOL = {"reset_pool": 64}
FAR = {"gamma": 0.997}  # a hopper falls or stands by what it did a few hundred steps before
PROBLEMS = {
    "Pendulum-v1": Problem(30_000, SMALL, {}, {}, 10),
    "brax/halfcheetah": Problem(300_000, MANY, ENTROPY, POOL, 4),
    "brax/hopper": Problem(600_000, MANY | FAR, ENTROPY, POOL, 4),
    "brax/reacher": Problem(200_000, MANY, ENTROPY, POOL, 4),
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
        problem, steps = PROBLEMS[env], round(PROBLEMS[env].steps * scale)
        for name, constructor in AGENTS.items():
            results[env][name] = jaxrl.sweep(
                constructor, env, num_steps=steps, seeds=seeds, progress=True, eval_every=steps // 20,
                eval_episodes=problem.eval_episodes, env_params=problem.env_params,
                out=folder_of(runs, f"{env}, {name}"),
                **problem.hyper_parameters | (problem.of_sac if name == "SAC" else {}),
            )  # fmt: skip
    found = comparison_table(f"Continuous control, {seeds:,} seeds: IQM (95 % interval)", results)
    show(
        found,
        plot_environments(f"Continuous control, {seeds:,} seeds: IQM and 95 % interval", results, by_time=True),
        out,
    )
    return {env: {name: run.final("eval_return") for name, run in named.items()} for env, named in results.items()}


if __name__ == "__main__":
    on_all_cores(main)
