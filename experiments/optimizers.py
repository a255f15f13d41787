"""Gradient descent with momentum, RMSProp and Adam: each wants a learning rate of its own, so each gets several.

REINFORCE with a linear baseline on CartPole-v1. On the left is every rate that was tried; on the right each optimiser
with its best. That one is chosen by one half of the seeds, and what is shown of it is the other half's: else the
optimiser with the most luck would win.

Over 32 seeds Adam is ahead, also at the rate below its best; RMSProp and momentum come to about the same, and their
best rates lie between some that are much worse.

    python experiments/optimizers.py
"""

import pathlib
from typing import Literal

import numpy as np
from common import FIGURES, on_all_cores, show

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import PALETTE, draw_band, new_figure
from jaxrl.analysis.statistics import finite_mean, interquartile_mean, iqm_interval
from jaxrl.types import Agent

RATES = {
    "sgd": (0.1, 0.3, 1.0, 3.0, 10.0),
    "rmsprop": (3e-3, 0.01, 0.03, 0.1, 0.3),
    "adam": (3e-3, 0.01, 0.03, 0.1, 0.3),
}
LABELS = {"sgd": "SGD with momentum", "rmsprop": "RMSProp", "adam": "Adam"}


def main(
    seeds: int = 32, steps: int = 100_000, num_rates: int = 5,
    optimizers: tuple[Literal[tuple(RATES)], ...] = tuple(RATES), out: pathlib.Path = FIGURES / "optimizers.png",
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
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
    numbers, rows = {}, []
    figure, (left, right) = new_figure("REINFORCE on CartPole-v1 by optimiser: IQM and 95 % interval", ("", ""))
    for optimizer, color in zip(optimizers, PALETTE, strict=False):
        rates = RATES[optimizer][:num_rates]
        results = jaxrl.sweep(
            agent, "CartPole-v1", num_steps=steps, seeds=seeds, progress=True, eval_every=steps,
            eval_episodes=1, optimizer=optimizer, learning_rate=list(rates),
        )  # fmt: skip
        numbers[optimizer] = found = summarize(results, rates)
        score, best, name = found["score"], found["best"], LABELS[optimizer]
        chosen = ["" if i != best else score[best, seeds // 2 :] for i in range(len(rates))]
        rows += [(name, f"{rate:g}", *cells) for rate, *cells in zip(rates, score, chosen, strict=True)] + [()]
        line, *bounds = iqm_interval(score, axis=-1)
        draw_band(left, found["rates"], line, *bounds, name, color)
        left.plot(rates, line, "o", ms=4, color=color)
        left.plot(rates[best], line[best], "o", ms=11, mfc="none", color=color)
        draw_band(right, results.steps, *iqm_interval(found["episode_return"]), f"{name}, {rates[best]:g}", color)
    left.set(xscale="log", xlabel="learning rate", ylabel="mean return of a run")
    left.margins(x=0.05)
    right.set_ylabel("return per episode, with the best rate")
    right.legend(frameon=False, fontsize=10, loc="lower right")
    title = f"CartPole-v1: mean return of a run, IQM (95 % interval) over {seeds:,} seeds"
    show(table(title, ("optimizer", "rate", "all", f"{seeds - seeds // 2:,} others"), rows), figure, out)
    return numbers


def agent(*, optimizer: str, learning_rate: float) -> Agent:
    """REINFORCE with a linear baseline."""
    return jaxrl.reinforce(
        optimizer=optimizer, learning_rate=learning_rate, baseline="linear", num_envs=4, hidden_sizes=(32,)
    )


def summarize(results: jaxrl.Results, rates: tuple[float, ...]) -> dict[str, np.ndarray]:
    """What `main` returns of an optimiser. A run that diverged has the least possible score, 0."""
    returns = results.values("episode_return")  # [R, S, intervals]
    score = np.where(np.isfinite(results.first_bad_step()), 0.0, finite_mean(returns))
    half = score.shape[1] // 2
    best = np.argmax(interquartile_mean(score[:, :half], axis=-1))
    return {"rates": np.array(rates), "score": score, "best": best, "episode_return": returns[best, half:]}


if __name__ == "__main__":
    on_all_cores(main)
