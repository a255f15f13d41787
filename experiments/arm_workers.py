"""More workers: what A3C and distributed PPO gain by them on the arm, in steps and in seconds.

Each worker has four environments. More of them see more of the arm between two updates (of DPPO) or push more gradients
that are staler (A3C); either way the same number of steps takes fewer, wider operations. Seconds are those of the run
with all its seeds side by side, without compiling, so the machine's load is in them; within a run, time passes evenly.

    python experiments/arm_workers.py
"""

from __future__ import annotations

import pathlib

import numpy as np
import rich
import tyro
from episodes import FIGURES, draw_band, final_cell, save, use_all_cores
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from rich.table import Table

import jaxrl
from jaxrl import Results
from jaxrl.agents.a3c import a3c
from jaxrl.agents.dppo import dppo
from jaxrl.plot import DPI, PALETTE, style

ENVS_EACH = 4  # environments of a worker
COMMON = {"learning_rate": 1e-3, "gamma": 0.9, "gae_lambda": 0.8, "activation": "relu"}
AGENTS = {"A3C": (a3c, {"rollout_length": 8}), "DPPO": (dppo, {"rollout_length": 32})}
ENVS = {"jaxrl/Arm-easy-v0": 0.25, "jaxrl/Arm-hard-v0": 1.0}  # and what part of the steps is enough
Key = tuple[str, str, int]  # environment, agent, number of workers


def main(
    seeds: int = 32,
    steps: int = 200_000,
    envs: tuple[str, ...] = tuple(ENVS),
    workers: tuple[int, ...] = (1, 2, 4, 8),
    out: pathlib.Path = FIGURES / "arm_workers.png",
) -> dict[Key, dict[str, np.ndarray]]:
    """Return of A3C and DPPO by the number of workers, against steps and seconds, over many seeds.

    Args:
      seeds: how many runs of each.
      steps: environment steps of each run, those of all workers together; on the easy arm a quarter of them.
      envs: keys of `ENVS`.
      workers: how many workers.
      out: where to write the figure.

    Returns:
      by environment, agent and number of workers: `steps` and `seconds`, `[intervals]`, when `episode_return`, the mean
      return of training episodes, `[S, intervals]`, was found; and `eval_return`, `[S]`, of greedy episodes at the end.
    """
    runs = {
        (env, name, count): jaxrl.sweep(
            constructor, env, num_steps=int(ENVS[env] * steps), seeds=seeds, eval_every=steps, num_workers=count,
            num_envs=count * ENVS_EACH, **COMMON, **settings,
        )
        for env in envs
        for name, (constructor, settings) in AGENTS.items()
        for count in workers
    }  # fmt: skip
    rich.print(tabulate(runs))
    save(draw(runs), out)
    return {
        key: {
            "steps": run.steps,
            "seconds": seconds(run),
            "episode_return": run.metrics["episode_return"],
            "eval_return": run.final("eval_return"),
        }
        for key, run in runs.items()
    }


def seconds(run: Results) -> np.ndarray:
    """When each of a run's steps was taken, if they followed each other evenly."""
    return run.steps * run.summary["run_seconds"] / run.steps[-1]


def tabulate(runs: dict[Key, Results]) -> Table:
    run = next(iter(runs.values()))
    table = Table(title=f"the arm, {run.num_seeds:,} seeds: IQM (95 % interval) of the greedy return at the end")
    for name in ("environment", "agent", "workers", "return", "steps", "seconds", "steps/s"):
        table.add_column(name, justify="left" if name in ("environment", "agent") else "right")
    for (env, agent, count), run in runs.items():
        cells = (final_cell(run.final("eval_return")), f"{run.steps[-1]:,}", f"{run.summary['run_seconds']:.1f}")
        table.add_row(env, agent, str(count), *cells, f"{run.summary['steps_per_second']:,.0f}")
    return table


def draw(runs: dict[Key, Results]) -> Figure:
    """An agent a row; for each environment a column against steps, and one against seconds."""
    envs = list(dict.fromkeys(env for env, _, _ in runs))
    figure = Figure(figsize=(7.6 * len(envs), 7.0), dpi=DPI, layout="constrained")
    seeds = next(iter(runs.values())).num_seeds
    title = f"A3C and DPPO on the arm by number of workers, {seeds:,} seeds: IQM and 95 % interval"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    panels = figure.subplots(len(AGENTS), 2 * len(envs), sharey="row", sharex="col", squeeze=False)
    for axes in panels.flat:
        style(axes)
        axes.margins(x=0.01)
    colors = dict(zip(dict.fromkeys(count for _, _, count in runs), PALETTE, strict=False))
    for (env, agent, count), run in runs.items():
        row, column = list(AGENTS).index(agent), 2 * envs.index(env)
        steps, *band = run.curve("episode_return")
        label = f"{count} worker{'s' if count > 1 else ''}"
        known = np.isfinite(band[0])  # early on all episodes end together, so that an interval may have none
        for axes, x in zip(panels[row, column : column + 2], (steps, seconds(run)), strict=True):
            draw_band(axes, x[known], *(line[known] for line in band), label, colors[count])
            axes.set_title(f"{agent}, {env}", fontsize=11)
    for axes, xlabel in zip(panels[-1], ("environment steps", "seconds") * len(envs), strict=True):
        axes.set_xlabel(xlabel)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axes in panels[:, 0]:
        axes.set_ylabel("return per episode")
    panels[0, 0].legend(frameon=False, fontsize=10)
    return figure


if __name__ == "__main__":
    use_all_cores()
    tyro.cli(main)
