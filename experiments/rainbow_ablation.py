"""Rainbow without each of its parts, on two games of MinAtar, beside all of it and plain DQN.

As figure 3 of Hessel et al. 2018, but MinAtar's games in place of Atari's, a network of two small layers, and fewer
steps, such that two cores do in minutes what took them days on a GPU; so what a part is worth here need not be what it
is worth there. Where noisy layers are left out, epsilon-greedy takes their place.

    python experiments/rainbow_ablation.py
"""

import pathlib
from typing import Literal

import numpy as np
from common import FIGURES, on_all_cores, show

import jaxrl
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import curves, draw_bands, new_figure
from jaxrl.types import Agent

SMALL = {
    "torso": "mlp", "hidden_sizes": (64, 64), "batch_size": 32, "rollout_length": 4, "learning_rate": 1e-3,
    "v_min": -5.0, "v_max": 5.0, "replay_size": 20_000, "warmup_steps": 1_000, "target_update_every": 1_000,
}  # fmt: skip
GREEDY = {"noisy": False, "epsilon_start": 1.0, "epsilon_final": 0.05, "epsilon_decay_steps": 5_000}
PARTS = {  # what leaves each of them out
    "double": {"double": False}, "priority": {"replay": "uniform"}, "dueling": {"dueling": False},
    "multi-step": {"n_step": 1}, "distribution": {"atoms": 1}, "noisy": GREEDY,
}  # fmt: skip
VARIANTS = {
    "Rainbow": {},
    **{f"no {part}": without for part, without in PARTS.items()},
    "DQN": {name: value for without in PARTS.values() for name, value in without.items()},
}


def main(
    seeds: int = 32, steps: int = 16_000, games: tuple[str, ...] = ("Breakout-MinAtar", "SpaceInvaders-MinAtar"),
    variants: tuple[Literal[tuple(VARIANTS)], ...] = tuple(VARIANTS),
    out: pathlib.Path = FIGURES / "rainbow_ablation.png",
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Learning curves of Rainbow, of it without each part, and of DQN, over many seeds.

    Args:
      seeds: how many runs of each variant.
      steps: environment steps of each run.
      games: ids of environments.
      variants: keys of `VARIANTS`.
      out: where to write the figure.

    Returns:
      by game and variant: the mean training return over the last tenth of the run, `[S]`.
    """
    header, columns, numbers = ["agent"], [variants], {}
    title = f"Rainbow and its parts, {seeds:,} seeds: IQM and 95 % interval"
    figure, panels = new_figure(title, games, ylabel="return per episode")
    for axes, game in zip(panels, games, strict=True):
        run = jaxrl.sweep(
            ablated, game, num_steps=steps, seeds=seeds, progress=True, eval_every=steps, variant=list(variants)
        )
        final = run.final("episode_return")
        numbers[game] = dict(zip(variants, final, strict=True))
        header += [f"{game}, all steps", "last tenth"]
        columns += [np.nanmean(run.metrics["episode_return"], axis=-1), final]
        draw_bands(axes, run.steps, curves(run, variants), alpha=0.08)  # there are eight
        for line, variant in zip(axes.lines, variants, strict=True):
            line.set_linestyle("--" if variant.startswith("no ") else "-")
    panels[0].legend(frameon=False, fontsize=9)
    title = f"training return of {run.steps[-1]:,} steps, IQM (95 % interval) of {seeds:,} seeds"
    show(table(title, header, zip(*columns, strict=True)), figure, out)
    return numbers


def ablated(*, variant: str) -> Agent:
    """A variant of Rainbow, small enough for a CPU: a gradient step for each of few environment steps."""
    return jaxrl.rainbow(**SMALL | VARIANTS[variant])


if __name__ == "__main__":
    on_all_cores(main)
