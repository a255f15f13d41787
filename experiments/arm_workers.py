"""More workers: what A3C and distributed PPO gain by them on the arm, in steps and in seconds.

Each worker has four environments. More of them see more of the arm between two updates (of DPPO) or push more gradients
that are staler (A3C); either way the same number of steps takes fewer, wider operations.

Drawn are greedy returns. Those of training are no measure of progress: an arm that cannot hold still yet sets its count
back again and again, and earns 200 in an episode that a better one ends after 51 steps on target, with about 50.

With 32 seeds side by side two cores are busy whatever the number of workers, so that more of them save no time: the
fewer, the sooner an agent has learnt the easy arm. On the hard one, more workers of DPPO end better.

    python experiments/arm_workers.py
"""

import pathlib
import time
from typing import Literal, NamedTuple

import jax
import numpy as np
from common import FIGURES, on_all_cores, show

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import PALETTE, STEPS, draw_band, new_figure
from jaxrl.analysis.statistics import iqm_interval
from jaxrl.loop import steps_per_update
from jaxrl.runs.program import Constructor, compile_group, plan

ENVS_EACH = 4  # environments of a worker
COMMON = {"learning_rate": 1e-3, "gamma": 0.9, "gae_lambda": 0.8, "activation": "relu"}
AGENTS = {"A3C": (jaxrl.a3c, {"rollout_length": 8}), "DPPO": (jaxrl.dppo, {"rollout_length": 32})}
ENVS = {"jaxrl/Arm-easy-v0": 0.25, "jaxrl/Arm-hard-v0": 1.0}  # and what part of the steps is enough
INTERVALS = 20


class Run(NamedTuple):
    """An agent's greedy returns, float `[S, 1 + INTERVALS]`, the first before any training.

    `steps` and `seconds`, `[1 + INTERVALS]`, are the environment steps and the time of training until then. Seconds are
    of all seeds side by side, without compiling and evaluating. All intervals are the same work, so the median of their
    times stands for each, and what else the machine does counts less.
    """

    steps: np.ndarray
    seconds: np.ndarray
    returns: np.ndarray


def main(
    seeds: int = 32, steps: int = 200_000, eval_episodes: int = 10,
    envs: tuple[Literal[tuple(ENVS)], ...] = tuple(ENVS), workers: tuple[int, ...] = (1, 2, 4, 8),
    out: pathlib.Path = FIGURES / "arm_workers.png",
) -> dict[tuple[str, str, int], Run]:  # fmt: skip
    """Return of A3C and DPPO by the number of workers, against steps and seconds, over many seeds.

    Args:
      seeds: how many runs of each.
      steps: environment steps of each run, those of all workers together; on the easy arm a quarter of them.
      eval_episodes: greedy episodes of each evaluation.
      envs: keys of `ENVS`.
      workers: how many workers.
      out: where to write the figure.

    Returns:
      by environment, agent and number of workers: what was measured.
    """
    runs, rows = {}, []
    title = f"A3C and DPPO on the arm by number of workers, {seeds:,} seeds: IQM and 95 % interval"
    figure, panels = new_figure(
        title, [""] * 2 * len(envs), rows=len(AGENTS), ylabel="greedy return", size=(7.6 * len(envs), 7.0),
        sharey=True, sharex="col",
    )  # fmt: skip
    grid = np.reshape(panels, (len(AGENTS), len(envs), 2))  # each environment against steps, and against seconds
    for column, env in enumerate(envs):
        for row, (name, (constructor, settings)) in enumerate(AGENTS.items()):
            for count, color in zip(workers, PALETTE, strict=False):
                arguments = COMMON | settings | {"num_workers": count, "num_envs": count * ENVS_EACH}
                run = measure(constructor, arguments, env, int(ENVS[env] * steps), seeds, eval_episodes)
                runs[env, name, count] = run
                cells = (run.returns[:, i] for i in (INTERVALS // 2, INTERVALS))
                rows.append((env.split("-")[1], name, count, *cells, f"{run.steps[-1]:,}", f"{run.seconds[-1]:.1f}"))
                band, label = iqm_interval(run.returns), f"{count} worker{'s' if count > 1 else ''}"
                for axes, x in zip(grid[row, column], (run.steps, run.seconds), strict=True):
                    draw_band(axes, x, *band, label, color)
                    axes.set_title(f"{name}, {env}", fontsize=11)
        for axes, xlabel in zip(grid[-1, column], (STEPS, "seconds"), strict=True):
            axes.set_xlabel(xlabel)
    panels[0].legend(frameon=False, fontsize=10, loc="lower right")
    header = ("arm", "agent", "workers", "half way", "at the end", "steps", "seconds")
    title = f"the arm, {seeds:,} seeds: IQM (95 % interval) of the greedy return"
    show(table(title, header, rows, text=("arm", "agent")), figure, out)
    return runs


def measure(
    constructor: Constructor, arguments: dict, env_id: str, num_steps: int, seeds: int, eval_episodes: int
) -> Run:
    """Trains all seeds of an agent, evaluates them after each interval, and takes the time of the training alone."""
    [group] = plan(constructor, arguments).groups
    program = compile_group(
        constructor, group, jaxrl.make(env_id),
        run_key=jax.random.key(0), num_seeds=seeds, num_eval_episodes=eval_episodes,
    )  # fmt: skip
    updates = max(1, num_steps // (INTERVALS * steps_per_update(program.agent)))
    state, times = program.init(), []
    returns = [np.asarray(program.evaluate(state))]
    for _ in range(INTERVALS):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(program.train(state, updates))
        times.append(time.perf_counter() - began)
        returns.append(np.asarray(program.evaluate(state)))  # and waits, so that it is not in the next interval's time
    intervals = np.arange(1 + INTERVALS)
    steps = intervals * updates * steps_per_update(program.agent)
    per_seed = np.stack([x[:seeds].mean(-1) for x in returns], axis=-1)  # [R, episodes] each -> [S, ...]
    return Run(steps, intervals * np.median(times), per_seed)


if __name__ == "__main__":
    on_all_cores(main)
