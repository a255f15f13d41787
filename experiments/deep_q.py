"""Deep Q-learning on three problems of rising difficulty: a maze, a pole on a cart, and a car in a valley.

The maze's cells are one-hot vectors, so that the network could be a table. CartPole-v1 rewards each step; of
MountainCar-v0 each step costs 1, up to a flag that random actions hardly ever reach in its 200 steps: here it gives
2,000. The greedy evaluations are dashed.

    python experiments/deep_q.py
"""

import pathlib
from typing import Literal

import numpy as np
from common import FIGURES, on_all_cores, show

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import EVALUATION_COLOR, EVALUATION_STYLE, draw_band, new_figure
from jaxrl.analysis.statistics import interquartile_mean

PROBLEMS = {  # the environment steps, arguments of `make`, and what of DQN's is not the default
    "jaxrl/Maze-v0": (5_000, {"flatten_observations": True}, {
        "gamma": 0.9, "batch_size": 32, "warmup_steps": 200, "epsilon_decay_steps": 2_000, "target_update_every": 100,
    }),
    "CartPole-v1": (100_000, {}, {
        "learning_rate": 1e-3, "replay_size": 100_000, "double": True, "rollout_length": 4, "replay_ratio": 0.25,
    }),
    "MountainCar-v0": (100_000, {"max_steps_in_episode": 2_000}, {
        "learning_rate": 1e-3, "batch_size": 64, "replay_size": 20_000, "double": True,
    }),
}  # fmt: skip


def main(
    seeds: int = 32, scale: float = 1.0, eval_episodes: int = 10,
    problems: tuple[Literal[tuple(PROBLEMS)], ...] = tuple(PROBLEMS), out: pathlib.Path = FIGURES / "deep_q.png",
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Learning curves of DQN on three problems, over many seeds.

    Args:
      seeds: how many runs of each.
      scale: the environment steps of each problem are multiplied by this.
      eval_episodes: greedy episodes of each evaluation.
      problems: keys of `PROBLEMS`.
      out: where to write the figure.

    Returns:
      by environment: `episode_return` in training, `[S, intervals]`, and `eval_return` at the end, `[S]`.
    """
    numbers, rows = {}, []
    title = f"DQN, {seeds:,} seeds: IQM and 95 % interval"
    figure, panels = new_figure(title, problems, ylabel="return per episode")
    for axes, env in zip(panels, problems, strict=True):
        steps, env_params, hyper_parameters = PROBLEMS[env]
        run = jaxrl.sweep(
            jaxrl.dqn, env, num_steps=round(steps * scale), seeds=seeds, eval_episodes=eval_episodes, progress=True,
            env_params=env_params, **hyper_parameters,
        )  # fmt: skip
        numbers[env] = {"episode_return": run.metrics["episode_return"], "eval_return": run.final("eval_return")}
        rows.append((env, f"{run.steps[-1]:,}", run.final("episode_return"), run.final("eval_return")))
        draw_band(axes, *run.curve(), "training")
        greedy = interquartile_mean(run.metrics["eval_return"], axis=0)
        known = np.isfinite(greedy)
        axes.plot(run.steps[known], greedy[known], color=EVALUATION_COLOR, label="greedy", **EVALUATION_STYLE)
    panels[0].legend(frameon=False, fontsize=10, loc="lower right")
    title = f"DQN, {seeds:,} seeds: IQM (95 % interval) at the end"
    show(table(title, ("environment", "steps", "training return", "greedy return"), rows), figure, out)
    return numbers


if __name__ == "__main__":
    on_all_cores(main)
