"""A2C on rewards multiplied by 1, 100 and 10,000, with Pop-Art and without.

The critic's error, and with it the gradient, grows with the rewards. Pop-Art (van Hasselt et al. 2016) lets the critic
say how far from the mean of its targets a value is, in their standard deviations, and changes its last layer whenever
these change, such that no value moves. What the agent then learns from does not depend on the rewards' scale.

    python experiments/pop_art.py
"""

from __future__ import annotations

import pathlib

import numpy as np
import rich
import tyro
from episodes import FIGURES, draw_band, final_cell, new_figure, save, use_all_cores
from matplotlib.ticker import EngFormatter
from rich.table import Table

import jaxrl
from jaxrl import Results
from jaxrl.analysis.plot import PALETTE
from jaxrl.types import Agent, Array, Key, PyTree, Transition

SCALES = (1.0, 100.0, 10_000.0)
CRITICS = {"plain critic": False, "Pop-Art": True}


def main(
    seeds: int = 32,
    steps: int = 200_000,
    scales: tuple[float, ...] = SCALES,
    env: str = "CartPole-v1",
    out: pathlib.Path = FIGURES / "pop_art.png",
) -> dict[str, dict[float, np.ndarray]]:
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
    rich.print(tabulate(results, scales))
    save(draw(results, scales), out)
    final = results.final("episode_return").reshape(len(CRITICS), len(scales), seeds)
    return {name: dict(zip(scales, final[i], strict=True)) for i, name in enumerate(CRITICS)}


def scaled(*, scale: float = 1.0, pop_art: bool = False) -> Agent:
    """A2C that learns from rewards multiplied by `scale`."""
    agent = jaxrl.a2c(pop_art=pop_art)

    def update(state: PyTree, trajectory: Transition, key: Key, step: Array):
        return agent.update(state, trajectory._replace(reward=scale * trajectory.reward), key, step)

    return agent._replace(update=update)


def tabulate(results: Results, scales: tuple[float, ...]) -> Table:
    table = Table(
        title=f"A2C, {results.num_seeds:,} seeds: return in the last tenth of {results.steps[-1]:,} steps, "
        "IQM (95 % interval)"
    )
    table.add_column("rewards times", justify="right")
    for name in CRITICS:
        table.add_column(name, justify="right")
    final = results.final("episode_return").reshape(len(CRITICS), len(scales), -1)
    for i, scale in enumerate(scales):
        table.add_row(f"{scale:,g}", *(final_cell(final[c, i]) for c in range(len(CRITICS))))
    return table


def draw(results: Results, scales: tuple[float, ...]):
    title = f"A2C by the rewards' scale, {results.num_seeds:,} seeds: IQM and 95 % interval"
    figure, panels = new_figure(title, columns=2)
    steps, *curves = map(np.atleast_2d, results.curve("episode_return"))
    for c, (axes, name) in enumerate(zip(panels, CRITICS, strict=True)):
        for i, (scale, color) in enumerate(zip(scales, PALETTE, strict=False)):
            band = (curve[c * len(scales) + i] for curve in curves)
            draw_band(axes, steps[0], *band, f"rewards times {scale:,g}", color)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("environment steps")
        axes.margins(x=0.01)
        axes.set_title(name, fontsize=11)
    panels[0].set_ylabel("return per episode")
    panels[0].legend(frameon=False, fontsize=10, loc="upper left")
    return figure


if __name__ == "__main__":
    use_all_cores()
    tyro.cli(main)
