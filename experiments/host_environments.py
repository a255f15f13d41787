"""Environments that are not written in JAX: a landing module, with engines on or off and by degrees, and Pong's screen.

They are stepped on the host, beside the updates, which are one compiled program for all seeds. A problem counts as
solved at the first greedy evaluation that reaches its threshold; the seconds are those of all seeds together,
without compiling. Pong has the standard preprocessing, rewards clipped to their signs, and the network of Mnih et al.
(2015), but screens of 44 x 44 pixels and a gradient step for each of the agent's steps: at 84 x 84 the network has more
than five times the products, which wants an accelerator.

    pip install 'jaxrl[gymnasium]'
    python experiments/host_environments.py
"""

import pathlib
from typing import Any, Literal

import numpy as np
import tyro
from common import FIGURES, folder_of, show

import jaxrl
from jaxrl.analysis.compare import plot_environments, table
from jaxrl.analysis.plot import GREY

PPO = {
    "num_envs": 16, "rollout_length": 256, "num_epochs": 4, "num_minibatches": 64, "gamma": 0.999, "gae_lambda": 0.98,
    "entropy_coef": 0.01, "learning_rate": 3e-4, "clip_value_loss": False,
}  # fmt: skip
SAC = {
    "actor_learning_rate": 7e-4, "critic_learning_rate": 7e-4, "tau": 0.01, "replay_size": 200_000,
    "warmup_steps": 4_000, "batch_size": 128, "hidden_sizes": (64, 64), "rollout_length": 4,
}  # fmt: skip
LANDER = "gymnasium/LunarLander-v3"
CONTINUOUS, MEAN = {"continuous": True}, {"critic_value": "mean", "target_entropy_ratio": 0.05}
PONG = {
    "learning_rate": 2e-4, "batch_size": 32, "replay_size": 100_000, "hidden_sizes": (256,), "double": True,
    "dueling": True, "n_step": 3, "rollout_length": 4, "warmup_steps": 10_000, "target_update_every": 1_000,
    "epsilon_decay_steps": 60_000, "epsilon_final": 0.02,
}  # fmt: skip
PROBLEMS = {  # agent and environment, seeds and steps, arguments of `make` and the agent, and what return solves it
    "PPO on lander": (jaxrl.ppo, LANDER, 16, 1_000_000, {}, PPO, 200),
    "SAC on lander": (jaxrl.discrete_sac, LANDER, 16, 250_000, {}, SAC | MEAN, 200),
    "PPO on lander by degrees": (jaxrl.ppo, LANDER, 16, 1_000_000, CONTINUOUS, PPO, 200),
    "SAC on lander by degrees": (jaxrl.sac, LANDER, 16, 150_000, CONTINUOUS, SAC, 200),
    "DQN on Pong": (
        jaxrl.dqn, "gymnasium/ALE/Pong-v5", 1, 500_000, {"clip_rewards": True, "screen_size": 44}, PONG, 18,
    ),
}  # fmt: skip


def main(
    seeds: int = 0, scale: float = 1.0, eval_episodes: int = 10,
    problems: tuple[Literal[tuple(PROBLEMS)], ...] = tuple(PROBLEMS), vectorization: str = "sync",
    runs: pathlib.Path | None = None, out: pathlib.Path = FIGURES / "host_environments.png",
) -> dict[str, dict[str, Any]]:  # fmt: skip
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
    numbers, rows, columns, solved = {}, [], {}, {}
    for name in problems:
        constructor, env, usual, full, env_params, hyper_parameters, threshold = PROBLEMS[name]
        steps = round(full * scale)
        run = jaxrl.sweep(
            constructor, env, num_steps=steps, seeds=seeds or usual, progress=True, eval_every=-(-steps // 20),
            eval_episodes=eval_episodes, out=folder_of(runs, name),
            env_params=env_params | {"vectorization": vectorization}, **hyper_parameters,
        )  # fmt: skip
        reached = run.values("eval_return") >= threshold  # [S, T]; a NaN has not
        at = np.where(reached.any(axis=-1), run.steps[reached.argmax(axis=-1)], np.inf)
        median, speed = np.median(at), run.summary["steps_per_second"]
        numbers[name] = {"eval_return": run.final("eval_return"), "solved_at": at, "steps_per_second": speed}
        seconds = run.summary["run_seconds"] * median / run.steps[-1]
        medians = (f"{x:,.0f}" if np.isfinite(x) else "-" for x in (median, seconds))
        cells = f"{run.steps[-1]:,}", run.final("eval_return"), np.isfinite(at).sum(), *medians, f"{speed:,.0f}"
        rows.append((name, run.num_seeds, *cells))
        agent, where = name.split(" on ")
        columns.setdefault(where, {})[f"{agent} ({run.num_seeds})"] = run
        solved[where] = threshold
    title = "Environments on the host: IQM and 95 % interval (of so many seeds)"
    figure = plot_environments(title, columns, by_time=True)
    for axes, threshold in zip(figure.axes, 2 * list(solved.values()), strict=True):
        axes.axhline(threshold, color=GREY, lw=1, ls="--", zorder=1)
    title = "On the host: IQM (95 % interval) at the end, and medians until solved"
    names = ("seeds", "steps", "greedy return", "solved", "after steps", "after seconds", "steps/s")
    show(table(title, ("agent, environment", *names), rows), figure, out)
    return numbers


if __name__ == "__main__":
    tyro.cli(main)
