"""The cross-entropy method: where it narrows too early, added noise keeps it looking (Szita and Lorincz 2006).

Linear policies on CartPole-v1, and on Swimmer-misc, where they steer to a goal past urchins that lie anywhere. The
noise is the paper's, relative to the first variance: 4 % of it after each update, or 5 % that falls to nothing, here
over half of the run. Hill climbing stands beside. Drawn are greedy episodes, of the mean or of the best candidate.

Over 32 seeds CartPole needs no noise. On Swimmer, whose returns vary with where things lie, the plain method stops
improving after 300,000 steps, its standard deviation gone; constant noise ends a third higher, decreasing a fifth.

    python experiments/cross_entropy.py
"""

import pathlib
from typing import Literal

import numpy as np
from common import FIGURES, on_all_cores, show

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import PALETTE, draw_band, new_figure

STEPS = {"CartPole-v1": 500_000, "Swimmer-misc": 2_000_000}
AGENTS = ("no noise", "constant noise", "decreasing noise", "hill climbing")
POINTS = 20  # of a curve
UPDATE = 25_000  # environment steps of the longest update, and so between two points at least


def main(
    seeds: int = 32, scale: float = 1.0, eval_episodes: int = 32,
    problems: tuple[Literal[tuple(STEPS)], ...] = tuple(STEPS), agents: tuple[Literal[AGENTS], ...] = AGENTS,
    out: pathlib.Path = FIGURES / "cross_entropy.png",
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
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
    numbers, rows = {}, []
    title = f"Cross-entropy method with linear policies, {seeds:,} seeds: IQM and 95 % interval"
    figure, panels = new_figure(title, problems, ylabel="return per greedy episode")
    for axes, env in zip(panels, problems, strict=True):
        steps, numbers[env] = round(STEPS[env] * scale), {}
        every = max(UPDATE, steps // POINTS)
        variants = {
            "no noise": (jaxrl.cem, {}),
            "constant noise": (jaxrl.cem, {"noise": 0.04}),
            "decreasing noise": (jaxrl.cem, {"noise": 0.05, "noise_decay_steps": steps // 2}),
            "hill climbing": (jaxrl.hill_climbing, {}),
        }
        for name, color in zip(agents, PALETTE, strict=False):
            constructor, hyper_parameters = variants[name]
            run = jaxrl.sweep(
                constructor, env, num_steps=steps, seeds=seeds, progress=True, log_every=every, eval_every=every,
                eval_episodes=eval_episodes, **hyper_parameters,
            )  # fmt: skip
            width = run.final("std") if run.has("std") else "-"
            rows.append((env, f"{run.steps[-1]:,}", name, run.final("eval_return"), width))
            draw_band(axes, *run.curve("eval_return"), name, color)
            numbers[env][name] = run.metrics["eval_return"]
        axes.set_ylim(bottom=0)
    panels[0].legend(frameon=False, fontsize=10, loc="lower right")
    title = f"cross-entropy method, {seeds:,} seeds: IQM (95 % interval) at the end"
    header = ("environment", "steps", "agent", "greedy return", "std")
    show(table(title, header, rows, text=("environment", "agent")), figure, out)
    return numbers


if __name__ == "__main__":
    on_all_cores(main)
