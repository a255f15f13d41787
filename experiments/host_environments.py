"""Environments that are not written in JAX: a landing module, with engines on or off and by degrees, and Pong's screen.

They are stepped on the host, beside the updates, which are one compiled program for all seeds. A problem counts as
solved at the first greedy evaluation that reaches its threshold; the seconds are those of all seeds together,
without compiling. Pong has the standard preprocessing, rewards clipped to their signs, and the network of Mnih et al.
(2015), but screens of 44 x 44 pixels and a gradient step for each of the agent's steps: at 84 x 84 the network has more
than five times the products, which wants an accelerator.

    pip install 'jaxrl[gymnasium]'
    python experiments/host_environments.py
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import comparison
import numpy as np
import rich
import tyro
from episodes import FIGURES, GREY, final_cell, folder_of, save
from rich.table import Table

import jaxrl
from jaxrl import Results
from jaxrl.types import Agent


class Problem(NamedTuple):
    """An agent in an environment: how many seeds of how many steps, arguments of `make`, what of the agent is not the
    default, and the return from which on it is solved.
    """

    agent: Callable[..., Agent]
    env: str
    seeds: int
    steps: int
    env_params: dict[str, Any]
    hyper_parameters: dict[str, Any]
    solved: float


PPO = {
    "num_envs": 16, "rollout_length": 256, "num_epochs": 4, "num_minibatches": 64, "gamma": 0.999, "gae_lambda": 0.98,
    "entropy_coef": 0.01, "learning_rate": 3e-4, "clip_value_loss": False,
}  # fmt: skip
SAC = {
    "actor_learning_rate": 7e-4, "critic_learning_rate": 7e-4, "tau": 0.01, "replay_size": 200_000,
    "warmup_steps": 4_000, "batch_size": 128, "hidden_sizes": (64, 64), "rollout_length": 4,
}  # fmt: skip
LANDER = "gymnasium/LunarLander-v3"
PROBLEMS = {
    "PPO on lander": Problem(jaxrl.ppo, LANDER, 16, 1_000_000, {}, PPO, 200),
    "SAC on lander": Problem(
        jaxrl.discrete_sac, LANDER, 16, 250_000, {}, SAC | {"critic_value": "mean", "target_entropy_ratio": 0.05}, 200
    ),
    "PPO on lander by degrees": Problem(jaxrl.ppo, LANDER, 16, 1_000_000, {"continuous": True}, PPO, 200),
    "SAC on lander by degrees": Problem(jaxrl.sac, LANDER, 16, 150_000, {"continuous": True}, SAC, 200),
    "DQN on Pong": Problem(
        jaxrl.dqn, "gymnasium/ALE/Pong-v5", 1, 500_000, {"clip_rewards": True, "screen_size": 44},
        {
            "learning_rate": 2e-4, "batch_size": 32, "replay_size": 100_000, "hidden_sizes": (256,), "double": True,
            "dueling": True, "n_step": 3, "rollout_length": 4, "warmup_steps": 10_000, "target_update_every": 1_000,
            "epsilon_decay_steps": 60_000, "epsilon_final": 0.02,
        },
        18,
    ),
}  # fmt: skip


def main(
    seeds: int = 0,
    scale: float = 1.0,
    eval_episodes: int = 10,
    problems: tuple[Literal[tuple(PROBLEMS)], ...] = tuple(PROBLEMS),
    vectorization: str = "sync",
    runs: pathlib.Path | None = None,
    out: pathlib.Path = FIGURES / "host_environments.png",
) -> dict[str, dict[str, Any]]:
    """Learning curves in environments on the host, and when they are solved.

    Args:
      seeds: how many runs of each, side by side; 0 is sixteen, and one of Pong, which takes a core an hour and a half.
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
        problem.agent, problem.env, num_steps=steps, seeds=seeds or problem.seeds, progress=True,
        eval_every=-(-steps // 20), eval_episodes=eval_episodes, out=out,
        env_params=problem.env_params | {"vectorization": vectorization}, **problem.hyper_parameters,
    )  # fmt: skip


def solved_at(results: Results, threshold: float) -> np.ndarray:
    """The environment steps of each seed at its first evaluation that reached a return; infinity if none did."""
    reached = results.values("eval_return") >= threshold  # [S, T]; a NaN has not
    return np.where(reached.any(axis=-1), results.steps[reached.argmax(axis=-1)], np.inf)


def tabulate(runs: dict[str, Results]) -> Table:
    table = Table(title="On the host: IQM (95 % interval) at the end, and medians until solved")
    table.add_column("agent, environment")
    for name in ("seeds", "steps", "greedy return", "solved", "after steps", "after seconds", "steps/s"):
        table.add_column(name, justify="right")
    for name, results in runs.items():
        at = solved_at(results, PROBLEMS[name].solved)
        median = np.median(at)
        seconds = results.summary["run_seconds"] * median / results.steps[-1]
        table.add_row(
            name, f"{results.num_seeds}", f"{results.steps[-1]:,}", final_cell(results.final("eval_return")),
            f"{np.isfinite(at).sum()}", *(f"{x:,.0f}" if np.isfinite(x) else "-" for x in (median, seconds)),
            f"{results.summary['steps_per_second']:,.0f}",
        )  # fmt: skip
    return table


def draw(runs: dict[str, Results]):
    """A column for each environment: above by steps, below by seconds, and from which return on it is solved."""
    columns: dict[str, dict[str, Results]] = {}
    for name, results in runs.items():
        agent, env = name.split(" on ")
        columns.setdefault(env, {})[f"{agent} ({results.num_seeds})"] = results
    solved = {name.split(" on ")[1]: PROBLEMS[name].solved for name in runs}
    title = "Environments on the host: IQM and 95 % interval (of so many seeds)"
    figure = comparison.draw(title, columns, by_time=True)
    for axes, env in zip(figure.axes, 2 * list(columns), strict=True):
        axes.axhline(solved[env], color=GREY, lw=1, ls="--", zorder=1)
    return figure


if __name__ == "__main__":
    tyro.cli(main)
