"""The cross-entropy method: where it narrows too early, added noise keeps it looking (Szita and Lorincz 2006).

Linear policies on CartPole-v1, and on Swimmer-misc, where they steer to a goal past urchins that lie anywhere. The
noise is the paper's, relative to the first variance: 4 % of it after each update, or 5 % that falls to nothing, here
over half of the run. Hill climbing stands beside. Drawn are greedy episodes, of the mean or of the best candidate.

Over 32 seeds CartPole needs no noise. On Swimmer, whose returns vary with where things lie, the plain method stops
improving after 300,000 steps, its standard deviation gone; constant noise ends a third higher, decreasing a fifth.

    python experiments/cross_entropy.py
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import rich
import tyro
from episodes import FIGURES, draw_band, final_cell, new_figure, save, use_all_cores
from matplotlib.ticker import EngFormatter
from rich.table import Table

import jaxrl
from jaxrl import Results, cem, hill_climbing
from jaxrl.analysis.plot import PALETTE
from jaxrl.types import Agent

STEPS = {"CartPole-v1": 500_000, "Swimmer-misc": 2_000_000}
AGENTS = ("no noise", "constant noise", "decreasing noise", "hill climbing")
POINTS = 20  # of a curve
UPDATE = 25_000  # environment steps of the longest update, and so between two points at least


def variants(steps: int) -> dict[str, tuple[Callable[..., Agent], dict[str, Any]]]:
    """Constructors of `AGENTS`, and their hyper-parameters in a run of so many environment steps."""
    return {
        "no noise": (cem, {}),
        "constant noise": (cem, {"noise": 0.04}),
        "decreasing noise": (cem, {"noise": 0.05, "noise_decay_steps": steps // 2}),
        "hill climbing": (hill_climbing, {}),
    }


def main(
    seeds: int = 32,
    scale: float = 1.0,
    eval_episodes: int = 32,
    problems: tuple[Literal[tuple(STEPS)], ...] = tuple(STEPS),
    agents: tuple[Literal[AGENTS], ...] = AGENTS,
    out: pathlib.Path = FIGURES / "cross_entropy.png",
) -> dict[str, dict[str, np.ndarray]]:
    """Greedy returns of the cross-entropy method without noise and with, over many seeds.

    Args:
      seeds: how many runs of each agent.
      scale: the environment steps of each problem are multiplied by this.
      eval_episodes: greedy episodes of each evaluation.
      problems: keys of `STEPS`.
      agents: of `AGENTS`.
      out: where to write the figure.

    Returns:
      by environment and agent: `eval_return`, `[S, points]`.
    """
    runs = {}
    for env in problems:
        steps = round(STEPS[env] * scale)
        every = max(UPDATE, steps // POINTS)
        chosen = {name: variants(steps)[name] for name in agents}
        runs[env] = {
            name: jaxrl.sweep(
                constructor, env, num_steps=steps, seeds=seeds, progress=True, log_every=every, eval_every=every,
                eval_episodes=eval_episodes, **hyper_parameters,
            )
            for name, (constructor, hyper_parameters) in chosen.items()
        }  # fmt: skip
    rich.print(tabulate(runs))
    save(draw(runs), out)
    return {env: {name: run.metrics["eval_return"] for name, run in found.items()} for env, found in runs.items()}


def tabulate(runs: dict[str, dict[str, Results]]) -> Table:
    seeds = next(iter(next(iter(runs.values())).values())).num_seeds
    table = Table(title=f"cross-entropy method, {seeds:,} seeds: IQM (95 % interval) at the end")
    for name in ("environment", "steps", "agent", "greedy return", "std"):
        table.add_column(name, justify="left" if name in ("environment", "agent") else "right")
    for env, found in runs.items():
        for name, run in found.items():
            width = final_cell(run.final("std")) if run.has("std") else "-"
            table.add_row(env, f"{run.steps[-1]:,}", name, final_cell(run.final("eval_return")), width)
    return table


def draw(runs: dict[str, dict[str, Results]]):
    seeds = next(iter(next(iter(runs.values())).values())).num_seeds
    title = f"Cross-entropy method with linear policies, {seeds:,} seeds: IQM and 95 % interval"
    figure, panels = new_figure(title, columns=len(runs), sharey=False)
    for axes, (env, found) in zip(panels, runs.items(), strict=True):
        for (name, run), color in zip(found.items(), PALETTE, strict=False):
            draw_band(axes, *run.curve("eval_return"), name, color)
        axes.set_title(env, fontsize=11)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("environment steps")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
    panels[0].set_ylabel("return per greedy episode")
    panels[0].legend(frameon=False, fontsize=10, loc="lower right")
    return figure


if __name__ == "__main__":
    use_all_cores()
    tyro.cli(main)
