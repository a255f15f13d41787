"""TRPO in the classic setting: batches of 4,000 steps, episodes of 100 steps at most, a step size of 0.01.

CartPole-v1, with a categorical policy, and a point that moves to the origin, with a Gaussian one; two layers of 32
units each, and a linear baseline as in Duan et al. (2016). Printed is all that an iteration reports, as means over the
seeds.

    python experiments/trpo.py
"""

from __future__ import annotations

import pathlib
from typing import Literal

import numpy as np
import tyro
from episodes import FIGURES, GREY, draw_curves, new_figure, save, use_all_cores
from rich.console import Console
from rich.table import Table

import jaxrl
from jaxrl import Results

HORIZON = 100
BEST = {  # mean return of the best policy within the horizon
    "CartPole-v1": 100.0,
    "jaxrl/Point-v0": -2.37,  # straight home along both axes, from 200,000 places
}
METRICS = (
    *("return_mean", "return_std", "return_max", "return_min", "num_trajectories", "entropy", "perplexity"),
    *("explained_variance", "kl_mean", "kl_max", "loss_before", "loss_after", "backtracks", "accepted"),
)


def main(
    seeds: int = 32,
    iterations: int = 40,
    batch: int = 4_000,
    problems: tuple[Literal[tuple(BEST)], ...] = tuple(BEST),
    out: pathlib.Path = FIGURES / "trpo.png",
) -> dict[str, dict[str, np.ndarray]]:
    """Learning curves of TRPO on two problems, over many seeds.

    Args:
      seeds: how many runs.
      iterations: batches of each run.
      batch: environment steps of each of them, a multiple of `HORIZON`.
      problems: keys of `BEST`.
      out: where to write the figure.

    Returns:
      by problem: each of `METRICS`, `[S, iterations]`, and `eval_return`, `[S]`, of greedy episodes at the end.
    """
    runs = {name: run(name, seeds, iterations, batch) for name in problems}
    console = Console(width=170)
    for name, results in runs.items():
        console.print(tabulate(name, results))
    save(draw(runs), out)
    return {
        name: {metric: results.metrics[metric] for metric in METRICS} | {"eval_return": results.final("eval_return")}
        for name, results in runs.items()
    }


def run(problem: str, seeds: int, iterations: int, batch: int) -> Results:
    """TRPO on one problem, every iteration recorded."""
    steps = iterations * batch
    return jaxrl.sweep(
        jaxrl.trpo, problem, num_steps=steps, seeds=seeds, progress=True, log_every=batch, eval_every=steps,
        num_envs=batch // HORIZON, rollout_length=HORIZON, max_kl=0.01, gamma=0.99, baseline="linear",
        hidden_sizes=(32, 32),
    )  # fmt: skip


def tabulate(problem: str, results: Results) -> Table:
    """One row for each iteration: the means over the seeds."""
    table = Table(title=f"TRPO on {problem}, {results.num_seeds:,} seeds: means")
    for name in ("iteration", *METRICS):
        table.add_column(name.replace("_", "\n"), justify="right")
    rows = np.stack([results.metrics[name].mean(axis=0) for name in METRICS], axis=-1)
    for iteration, row in enumerate(rows):
        table.add_row(str(iteration), *(f"{x:.3g}" if abs(x) < 1 else f"{x:.4g}" for x in row))
    return table


def draw(runs: dict[str, Results]):
    seeds = next(iter(runs.values())).num_seeds
    figure, panels = new_figure(f"TRPO, {seeds:,} seeds: IQM and 95 % interval", columns=len(runs), sharey=False)
    for axes, (name, results) in zip(panels, runs.items(), strict=True):
        draw_curves(axes, results, [name], "return_mean")
        axes.axhline(BEST[name], color=GREY, lw=1, ls="--", zorder=1)
        axes.set_title(name, fontsize=11)
    panels[0].set_ylabel("mean return of a batch's episodes")
    return figure


if __name__ == "__main__":
    use_all_cores()
    tyro.cli(main)
