"""A2C on rewards multiplied by 1, 100 and 10,000, with Pop-Art and without.

The critic's error, and with it the gradient, grows with the rewards. Pop-Art (van Hasselt et al. 2016) lets the critic
say how far from the mean of its targets a value is, in their standard deviations, and changes its last layer whenever
these change, such that no value moves. What the agent then learns from does not depend on the rewards' scale.

    python experiments/pop_art.py
"""

import pathlib

import numpy as np
from common import FIGURES, on_all_cores, show

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import curves, draw_bands, new_figure
from jaxrl.types import Agent

SCALES = (1.0, 100.0, 10_000.0)
CRITICS = {"plain critic": False, "Pop-Art": True}


def main(
    seeds: int = 32, steps: int = 200_000, scales: tuple[float, ...] = SCALES, env: str = "CartPole-v1",
    out: pathlib.Path = FIGURES / "pop_art.png",
) -> dict[str, dict[float, np.ndarray]]:  # fmt: skip
    """Learning curves of A2C by the rewards' scale, over many seeds.

    Args:
      seeds: how many runs of each.
      steps: environment steps of each run.
      scales: what the agent's rewards are multiplied by; the returns that are shown are not.
      env: environment id.
      out: where to write the figure.

    Returns:
      by critic and scale: the mean training return over the last tenth of the run, `[S]`.
    """
    results = jaxrl.sweep(
        scaled, env, num_steps=steps, seeds=seeds, progress=True, eval_every=steps,
        pop_art=list(CRITICS.values()), scale=list(scales),
    )  # fmt: skip
    final = results.final("episode_return").reshape(len(CRITICS), len(scales), seeds)
    rows = [(f"{scale:,g}", *final[:, i]) for i, scale in enumerate(scales)]
    figure, panels = new_figure(
        f"A2C by the rewards' scale, {seeds:,} seeds: IQM and 95 % interval", list(CRITICS),
        ylabel="return per episode", sharey=True,
    )  # fmt: skip
    names = [(critic, f"rewards times {scale:,g}") for critic in CRITICS for scale in scales]
    bands = curves(results, names)
    for axes, critic in zip(panels, CRITICS, strict=True):
        draw_bands(axes, results.steps, {name: band for (of, name), band in bands.items() if of == critic})
    panels[0].legend(frameon=False, fontsize=10, loc="upper left")
    title = f"A2C, {seeds:,} seeds: return in the last tenth of {results.steps[-1]:,} steps, IQM (95 % interval)"
    show(table(title, ("rewards times", *CRITICS), rows, text=()), figure, out)
    return {name: dict(zip(scales, final[i], strict=True)) for i, name in enumerate(CRITICS)}


def scaled(*, scale: float = 1.0, pop_art: bool = False) -> Agent:
    """A2C that learns from rewards multiplied by `scale`."""
    agent = jaxrl.a2c(pop_art=pop_art)

    def update(state, trajectory, key, step):
        return agent.update(state, trajectory._replace(reward=scale * trajectory.reward), key, step)

    return agent._replace(update=update)


if __name__ == "__main__":
    on_all_cores(main)
