"""Environments that are not written in JAX: a landing module, with engines on or off and by degrees, and Pong's screen.

They are stepped on the host, beside the updates, which are one compiled program for all seeds. A problem counts as
solved at the first greedy evaluation that reaches its threshold; the seconds are those of all seeds together,
without compiling. Pong has the standard preprocessing, rewards clipped to their signs, and the network of Mnih et al.
(2015), but screens of 44 x 44 pixels: at 84 x 84 a gradient step costs ten times as much, which wants an accelerator.

    pip install 'jaxrl[gymnasium]'
    python experiments/host_environments.py
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import rich
import tyro
from episodes import FIGURES, GREY, draw_curves, final_cell, folder_of, new_figure, save
from rich.table import Table

import jaxrl
from jaxrl import Results
from jaxrl.types import Agent


class Problem(NamedTuple):
    """An agent in an environment: its steps, arguments of `make`, what of the agent is not the default, and the return
    from which on it is solved.
    """

    agent: Callable[..., Agent]
    env: str
    steps: int
    env_params: dict[str, Any]
    hyper_parameters: dict[str, Any]
    solved: float


PPO = {
    "num_envs": 16, "rollout_length": 256, "num_epochs": 4, "num_minibatches": 64, "gamma": 0.999, "gae_lambda": 0.98,
    "entropy_coef": 0.01, "learning_rate": 3e-4, "clip_value_loss": False,
}  # fmt: skip
LANDER = "gymnasium/LunarLander-v3"
PROBLEMS = {
    "PPO, lander": Problem(jaxrl.ppo, LANDER, 1_000_000, {}, PPO, 200),
    "DQN, lander": Problem(
        jaxrl.dqn, LANDER, 200_000, {},
        {
            "learning_rate": 6.3e-4, "batch_size": 128, "replay_size": 50_000, "hidden_sizes": (256, 256),
            "double": True, "rollout_length": 4, "target_update_every": 250,
            "epsilon_decay_steps": 20_000, "epsilon_final": 0.1,
        },
        200,
    ),
    "PPO, lander by degrees": Problem(jaxrl.ppo, LANDER, 1_000_000, {"continuous": True}, PPO, 200),
    "SAC, lander by degrees": Problem(
        jaxrl.sac, LANDER, 300_000, {"continuous": True},
        {
            "actor_learning_rate": 7e-4, "critic_learning_rate": 7e-4, "tau": 0.01, "replay_size": 200_000,
            "warmup_steps": 4_000, "batch_size": 128, "hidden_sizes": (64, 64), "rollout_length": 4,
        },
        200,
    ),
    "DQN, Pong": Problem(
        jaxrl.dqn, "gymnasium/ALE/Pong-v5", 700_000, {"clip_rewards": True, "screen_size": 44},
        {
            "learning_rate": 2.5e-4, "batch_size": 32, "replay_size": 100_000, "hidden_sizes": (256,), "double": True,
            "dueling": True, "n_step": 3, "rollout_length": 4, "replay_ratio": 0.25, "warmup_steps": 10_000,
            "target_update_every": 500, "epsilon_decay_steps": 60_000, "epsilon_final": 0.02,
        },
        18,
    ),
}  # fmt: skip


def main(
    seeds: int = 4,
    scale: float = 1.0,
    eval_episodes: int = 10,
    problems: tuple[str, ...] = tuple(PROBLEMS),
    vectorization: str = "sync",
    runs: pathlib.Path | None = None,
    out: pathlib.Path = FIGURES / "host_environments.png",
) -> dict[str, dict[str, Any]]:
    """Learning curves in environments on the host, and when they are solved.

    Args:
      seeds: how many runs of each, side by side.
      scale: the environment steps of each problem are multiplied by this.
      eval_episodes: greedy episodes of each evaluation, of which there are twenty.
      problems: keys of `PROBLEMS`.
      vectorization: sync, or async for a process for each environment.
      runs: a folder to keep the runs in, from which the same command goes on after an interruption.
      out: where to write the figure.

    Returns:
      by problem: `eval_return` at the end and `solved_at`, the environment steps of each seed until then (infinity if
      never), each `[S]`; and `steps_per_second`, of all seeds together.
    """
    results = {
        name: run(PROBLEMS[name], seeds, scale, eval_episodes, vectorization, folder_of(runs, name))
        for name in problems
    }
    rich.print(tabulate(results))
    save(draw(results), out)
    return {
        name: {
            "eval_return": result.final("eval_return"),
            "solved_at": solved_at(result, PROBLEMS[name].solved),
            "steps_per_second": result.summary["steps_per_second"],
        }
        for name, result in results.items()
    }


def run(
    problem: Problem, seeds: int, scale: float, eval_episodes: int, vectorization: str, out: pathlib.Path | None
) -> Results:
    """The learning curves of one problem."""
    steps = round(problem.steps * scale)
    return jaxrl.sweep(
        problem.agent, problem.env, num_steps=steps, seeds=seeds, progress=True, eval_every=-(-steps // 20),
        eval_episodes=eval_episodes, env_params=problem.env_params | {"vectorization": vectorization}, out=out,
        **problem.hyper_parameters,
    )  # fmt: skip


def solved_at(results: Results, threshold: float) -> np.ndarray:
    """The environment steps of each seed at its first evaluation that reached a return; infinity if none did."""
    reached = results.values("eval_return") >= threshold  # [S, T]; a NaN has not
    return np.where(reached.any(axis=-1), results.steps[reached.argmax(axis=-1)], np.inf)


def tabulate(runs: dict[str, Results]) -> Table:
    seeds = next(iter(runs.values())).num_seeds
    table = Table(title=f"On the host, {seeds:,} seeds: IQM (95 % interval) at the end, and medians until solved")
    for name in ("agent, environment", "steps", "greedy return", "solved", "after steps", "after seconds", "steps/s"):
        table.add_column(name, justify="left" if name.startswith("agent") else "right")
    for name, results in runs.items():
        at = solved_at(results, PROBLEMS[name].solved)
        median = np.median(at)
        seconds = results.summary["run_seconds"] * median / results.steps[-1]
        table.add_row(
            name, f"{results.steps[-1]:,}", final_cell(results.final("eval_return")), f"{np.isfinite(at).sum()}",
            *(f"{x:,.0f}" if np.isfinite(x) else "-" for x in (median, seconds)),
            f"{results.summary['steps_per_second']:,.0f}",
        )  # fmt: skip
    return table


def draw(runs: dict[str, Results]):
    seeds = next(iter(runs.values())).num_seeds
    title = f"Environments on the host, {seeds:,} seeds: IQM and 95 % interval"
    figure, panels = new_figure(title, columns=len(runs), sharey=False)
    for axes, (name, results) in zip(panels, runs.items(), strict=True):
        draw_curves(axes, results, [name])
        axes.axhline(PROBLEMS[name].solved, color=GREY, lw=1, ls="--", zorder=1)
        axes.set_title(name, fontsize=11)
    panels[0].set_ylabel("return in training")
    return figure


if __name__ == "__main__":
    tyro.cli(main)
