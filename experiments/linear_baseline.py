"""A linear baseline and whitened advantages against REINFORCE as it is, on a CartPole of 100 steps.

Each iteration has 100 environments begin anew and act for 100 steps, the time limit; then comes one gradient step. The
baseline is linear in the observation, its square and powers of the time (Duan et al. 2016). Whitening takes a mean from
the advantages as well, the same one for all states.

Over 32 seeds it makes little difference: the mean over so many trajectories has little noise left to take away. The
baseline alone arrives about an iteration sooner. Whitening does not help, as Adam sees to the scale by itself.

    python experiments/linear_baseline.py
"""

import pathlib
from typing import Literal

import numpy as np
from common import FIGURES, by_name, on_all_cores, show
from matplotlib.ticker import MaxNLocator

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import curves, draw_bands, new_figure
from jaxrl.analysis.statistics import finite_mean
from jaxrl.types import Agent

VARIANTS = {
    "vanilla": {"baseline": "none", "normalize_advantage": False},
    "whitened": {"baseline": "none", "normalize_advantage": True},
    "linear baseline": {"baseline": "linear", "normalize_advantage": False},
    "linear baseline, whitened": {"baseline": "linear", "normalize_advantage": True},
}
TRAJECTORIES = 100
LENGTH = 100


def main(
    seeds: int = 32, iterations: int = 16, eval_episodes: int = 10,
    variants: tuple[Literal[tuple(VARIANTS)], ...] = tuple(VARIANTS),
    out: pathlib.Path = FIGURES / "linear_baseline.png",
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Returns of REINFORCE with and without a linear baseline and whitening, over many seeds.

    Args:
      seeds: how many runs of each variant.
      iterations: updates of each run.
      eval_episodes: greedy episodes of the last evaluation.
      variants: keys of `VARIANTS`.
      out: where to write the figure.

    Returns:
      by variant: `episode_return` and `explained_variance`, `[S, iterations]`, and `eval_return`, `[S]`, of the last
      greedy evaluation.
    """
    size = TRAJECTORIES * LENGTH
    results = jaxrl.sweep(
        agent, "CartPole-v1", num_steps=iterations * size, seeds=seeds, log_every=size, eval_every=iterations * size,
        progress=True, eval_episodes=eval_episodes, env_params={"max_steps_in_episode": LENGTH}, variant=list(variants),
    )  # fmt: skip
    columns = [finite_mean(results.values("episode_return")), results.final("episode_return"), results.final()]
    rows = zip(variants, *columns, strict=True)
    title = f"CartPole of {LENGTH} steps, {seeds:,} seeds: return, IQM (95 % interval)"
    figure, (axes,) = new_figure(
        f"REINFORCE on a CartPole of {LENGTH} steps, {seeds:,} seeds: IQM and 95 % interval",
        xlabel=f"iterations of {TRAJECTORIES} x {LENGTH} steps", ylabel="return per episode",
    )  # fmt: skip
    draw_bands(axes, results.steps // size, curves(results, variants))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=10, loc="lower right")
    show(table(title, ("REINFORCE", "over the run", "at its end", "greedy"), rows), figure, out)
    return by_name(results, variants, "episode_return", "explained_variance")


def agent(*, variant: str) -> Agent:
    """REINFORCE of `VARIANTS`."""
    return jaxrl.reinforce(
        learning_rate=0.03, num_envs=TRAJECTORIES, rollout_length=LENGTH, hidden_sizes=(32,), **VARIANTS[variant]
    )


if __name__ == "__main__":
    on_all_cores(main)
