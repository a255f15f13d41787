"""Policy gradients: what may an action's probability be weighed by? The less noise, the sooner it learns.

REINFORCE on CartPole-v1 with the return of the whole episode, which counts rewards from before the action too, and with
the reward to go, the discounted return from the action on; each as it is, and less a linear baseline. All four are
right on average (Sutton and Barto 2018, section 13.4; Schulman et al. 2016, section 2, lists them).

Over 32 seeds each step helps, and the intervals keep apart: the total return is far behind, a baseline is worth more to
it than leaving out the past, and both together are best.

    python experiments/policy_gradient_estimators.py
"""

import pathlib
from typing import Literal

import numpy as np
from common import FIGURES, by_name, on_all_cores, show

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import curves, draw_bands, new_figure
from jaxrl.analysis.statistics import finite_mean
from jaxrl.types import Agent

ESTIMATORS = {
    "total return": {"estimator": "total_return", "baseline": "none"},
    "total return less baseline": {"estimator": "total_return", "baseline": "linear"},
    "reward to go": {"estimator": "reward_to_go", "baseline": "none"},
    "reward to go less baseline": {"estimator": "reward_to_go", "baseline": "linear"},
}


def main(
    seeds: int = 32, steps: int = 240_000, eval_episodes: int = 10,
    estimators: tuple[Literal[tuple(ESTIMATORS)], ...] = tuple(ESTIMATORS),
    out: pathlib.Path = FIGURES / "policy_gradient_estimators.png",
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Returns of REINFORCE with four estimators of the policy gradient, over many seeds.

    Args:
      seeds: how many runs of each estimator.
      steps: environment steps of each run.
      eval_episodes: greedy episodes of the last evaluation.
      estimators: keys of `ESTIMATORS`.
      out: where to write the figure.

    Returns:
      by estimator: `episode_return`, `[S, intervals]`, and `eval_return`, `[S]`, of the last greedy evaluation.
    """
    results = jaxrl.sweep(
        agent, "CartPole-v1", num_steps=steps, seeds=seeds, eval_every=steps, eval_episodes=eval_episodes,
        weight=list(estimators), progress=True,
    )  # fmt: skip
    columns = [finite_mean(results.values("episode_return")), results.final("episode_return"), results.final()]
    rows = zip(estimators, *columns, strict=True)
    title = f"CartPole-v1, {seeds:,} seeds: return, IQM (95 % interval)"
    figure, (axes,) = new_figure(
        f"REINFORCE on CartPole-v1 by what it weighs actions by, {seeds:,} seeds: IQM and 95 % interval",
        ylabel="return per episode",
    )
    draw_bands(axes, results.steps, curves(results, estimators))
    axes.legend(frameon=False, fontsize=10, loc="upper left")
    show(table(title, ("weight", "over the run", "at its end", "greedy"), rows), figure, out)
    return by_name(results, estimators, "episode_return")


def agent(*, weight: str) -> Agent:
    """REINFORCE with an estimator of `ESTIMATORS`. Its advantages are not whitened, which would be a baseline, too."""
    return jaxrl.reinforce(
        learning_rate=3e-3, normalize_advantage=False, num_envs=4, hidden_sizes=(32,), **ESTIMATORS[weight]
    )


if __name__ == "__main__":
    on_all_cores(main)
