"""Gradient descent with momentum, RMSProp and Adam: each wants a learning rate of its own, so each gets several.

REINFORCE with a linear baseline on CartPole-v1. On the left is every rate that was tried; on the right each optimiser
with its best. That one is chosen by one half of the seeds, and what is shown of it is the other half's: else the
optimiser with the most luck would win.

Over 32 seeds Adam is ahead, also at the rate below its best; RMSProp and momentum come to about the same, and their
best rates lie between some that are much worse.

    python experiments/optimizers.py
"""

from __future__ import annotations

import pathlib
from typing import Literal

import numpy as np
import rich
import tyro
from episodes import FIGURES, draw_band, final_cell, new_figure, save, use_all_cores
from matplotlib.ticker import EngFormatter
from rich.table import Table

import jaxrl
from jaxrl import Results, reinforce
from jaxrl.analysis.plot import PALETTE
from jaxrl.analysis.statistics import bootstrap_interval, finite_mean, interquartile_mean
from jaxrl.types import Agent

RATES = {
    "sgd": (0.1, 0.3, 1.0, 3.0, 10.0),
    "rmsprop": (3e-3, 0.01, 0.03, 0.1, 0.3),
    "adam": (3e-3, 0.01, 0.03, 0.1, 0.3),
}
LABELS = {"sgd": "SGD with momentum", "rmsprop": "RMSProp", "adam": "Adam"}


def main(
    seeds: int = 32,
    steps: int = 100_000,
    num_rates: int = 5,
    optimizers: tuple[Literal[tuple(RATES)], ...] = tuple(RATES),
    out: pathlib.Path = FIGURES / "optimizers.png",
) -> dict[str, dict[str, np.ndarray]]:
    """Returns of REINFORCE with three optimisers and several learning rates of each, over many seeds.

    Args:
      seeds: how many runs of each optimiser and rate, at least 4.
      steps: environment steps of each run.
      num_rates: how many of the `RATES` to try, from the first on.
      optimizers: keys of `RATES`.
      out: where to write the figure.

    Returns:
      by optimiser: `rates`, `[R]`; `score`, the mean return over a run, `[R, S]`; `best`, the index of the rate that is
      best by the first half of the seeds, `[]`; `episode_return` of the other half with it, `[S / 2, intervals]`.
    """
    jaxrl.checks.integer("optimizers", 4, seeds=seeds)
    numbers = {}
    for optimizer in optimizers:
        rates = RATES[optimizer][:num_rates]
        results = jaxrl.sweep(
            agent, "CartPole-v1", num_steps=steps, seeds=seeds, progress=True, eval_every=steps,
            eval_episodes=1, optimizer=optimizer, learning_rate=list(rates),
        )  # fmt: skip
        numbers[optimizer] = summarize(results, rates)
    rich.print(tabulate(numbers))
    save(draw(numbers, results.steps), out)
    return numbers


def agent(*, optimizer: str, learning_rate: float) -> Agent:
    """REINFORCE with a linear baseline."""
    return reinforce(
        optimizer=optimizer, learning_rate=learning_rate, baseline="linear", num_envs=4, hidden_sizes=(32,)
    )


def summarize(results: Results, rates: tuple[float, ...]) -> dict[str, np.ndarray]:
    """What `main` returns of an optimiser. A run that diverged has the least possible score, 0."""
    returns = results.values("episode_return")  # [R, S, intervals]
    score = np.where(np.isfinite(results.first_bad_step()), 0.0, finite_mean(returns))
    half = score.shape[1] // 2
    best = np.argmax(interquartile_mean(score[:, :half], axis=-1))
    return {"rates": np.array(rates), "score": score, "best": best, "episode_return": returns[best, half:]}


def tabulate(numbers: dict[str, dict[str, np.ndarray]]) -> Table:
    seeds = next(iter(numbers.values()))["score"].shape[1]
    table = Table(title=f"CartPole-v1: mean return of a run, IQM (95 % interval) over {seeds:,} seeds")
    table.add_column("optimizer")
    table.add_column("rate", justify="right")
    table.add_column("all", justify="right")
    table.add_column(f"{seeds - seeds // 2:,} others", justify="right")
    for optimizer, found in numbers.items():
        for i, (rate, score) in enumerate(zip(found["rates"], found["score"], strict=True)):
            chosen = final_cell(score[seeds // 2 :]) if i == found["best"] else ""
            table.add_row(LABELS[optimizer], f"{rate:g}", final_cell(score), chosen)
        table.add_section()
    return table


def draw(numbers: dict[str, dict[str, np.ndarray]], steps: np.ndarray):
    title = "REINFORCE on CartPole-v1 by optimiser: IQM and 95 % interval"
    figure, (left, right) = new_figure(title, columns=2, sharey=False)
    for (optimizer, found), color in zip(numbers.items(), PALETTE, strict=False):
        rates, score, best = found["rates"], found["score"], found["best"]
        line = interquartile_mean(score, axis=-1)
        draw_band(left, rates, line, *bootstrap_interval(score, axis=-1), LABELS[optimizer], color)
        left.plot(rates, line, "o", ms=4, color=color)
        left.plot(rates[best], line[best], "o", ms=11, mfc="none", color=color)
        curves = found["episode_return"]
        label = f"{LABELS[optimizer]}, {rates[best]:g}"
        draw_band(right, steps, interquartile_mean(curves, axis=0), *bootstrap_interval(curves), label, color)
    left.set_xscale("log")
    left.set_xlabel("learning rate")
    left.set_ylabel("mean return of a run")
    right.xaxis.set_major_formatter(EngFormatter(sep=""))
    right.set_xlabel("environment steps")
    right.set_ylabel("return per episode, with the best rate")
    right.margins(x=0.01)
    right.legend(frameon=False, fontsize=10, loc="lower right")
    return figure


if __name__ == "__main__":
    use_all_cores()
    tyro.cli(main)
