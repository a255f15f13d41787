"""TRPO in the classic setting: batches of 4,000 steps, episodes of 100 steps at most, a step size of 0.01.

CartPole-v1, with a categorical policy, and a point that moves to the origin, with a Gaussian one; two layers of 32
units each, and a linear baseline as in Duan et al. (2016). Printed is all that an iteration reports, as means over the
seeds.

    python experiments/trpo.py
"""

import pathlib
from typing import Literal

import numpy as np
from common import FIGURES, on_all_cores, save
from rich.console import Console

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import GREY, draw_band, new_figure

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
    seeds: int = 32, iterations: int = 40, batch: int = 4_000,
    problems: tuple[Literal[tuple(BEST)], ...] = tuple(BEST), out: pathlib.Path = FIGURES / "trpo.png",
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
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
    runs = {
        problem: jaxrl.sweep(
            jaxrl.trpo, problem, num_steps=iterations * batch, seeds=seeds, progress=True, log_every=batch,
            eval_every=iterations * batch, num_envs=batch // HORIZON, rollout_length=HORIZON, max_kl=0.01, gamma=0.99,
            baseline="linear", hidden_sizes=(32, 32),
        )
        for problem in problems
    }  # fmt: skip
    console, header = Console(width=170), ("iteration", *(name.replace("_", "\n") for name in METRICS))
    figure, panels = new_figure(
        f"TRPO, {seeds:,} seeds: IQM and 95 % interval", problems, ylabel="mean return of a batch's episodes"
    )
    for axes, (problem, run) in zip(panels, runs.items(), strict=True):
        means = np.stack([run.metrics[name].mean(axis=0) for name in METRICS], axis=-1)
        rows = [(i, *(f"{x:.3g}" if abs(x) < 1 else f"{x:.4g}" for x in row)) for i, row in enumerate(means)]
        console.print(table(f"TRPO on {problem}, {seeds:,} seeds: means", header, rows, text=()))
        draw_band(axes, *run.curve("return_mean"), problem)
        axes.axhline(BEST[problem], color=GREY, lw=1, ls="--", zorder=1)
    save(figure, out)
    return {
        name: {metric: run.metrics[metric] for metric in METRICS} | {"eval_return": run.final("eval_return")}
        for name, run in runs.items()
    }


if __name__ == "__main__":
    on_all_cores(main)
