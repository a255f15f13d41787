"""What studies share that set agents beside each other: runs by environment and name, their table and their figure."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from episodes import draw_band, final_cell, folder_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from rich.table import Table

import jaxrl
from jaxrl import Results
from jaxrl.analysis.plot import DPI, PALETTE, style
from jaxrl.analysis.statistics import bootstrap_interval, interquartile_mean
from jaxrl.runs.program import Constructor

EVALUATIONS = 20

# Results by environment and name.
Runs = Mapping[str, Mapping[str, Results]]


class Contender(NamedTuple):
    """An agent's constructor, and what of its arguments is not the default."""

    constructor: Constructor
    hyper_parameters: Mapping[str, Any]


def compare(
    contenders: Mapping[str, Contender],
    envs: Mapping[str, int],
    *,
    seeds: int,
    eval_episodes: int = 10,
    env_params: Mapping[str, Any] | None = None,
    runs: pathlib.Path | None = None,
) -> dict[str, dict[str, Results]]:
    """Trains every contender in every environment.

    Args:
      contenders: by name.
      envs: environment steps of a run, by the environment's id.
      seeds: how many runs of each.
      eval_episodes: greedy episodes of each of `EVALUATIONS` evaluations.
      env_params: arguments of `make`, for every environment.
      runs: a folder for the runs; see `folder_of`.

    Returns:
      the results, by environment and name.
    """
    return {
        env: {
            name: jaxrl.sweep(
                constructor, env, num_steps=steps, seeds=seeds, progress=True, eval_every=steps // EVALUATIONS,
                eval_episodes=eval_episodes, env_params=env_params, out=folder_of(runs, f"{env}, {name}"),
                **hyper_parameters,
            )
            for name, (constructor, hyper_parameters) in contenders.items()
        }
        for env, steps in envs.items()
    }  # fmt: skip


def tabulate(title: str, runs: Runs) -> Table:
    """The greedy return at each run's end, and the seconds that all seeds side by side took."""
    table = Table(title=title)
    for name in ("environment", "agent", "greedy return", "seconds"):
        table.add_column(name, justify="right" if name in ("greedy return", "seconds") else "left")
    for env, named in runs.items():
        for i, (name, run) in enumerate(named.items()):
            what = f"{env}, {run.steps[-1]:,} steps" if i == 0 else ""
            table.add_row(what, name, final_cell(run.final("eval_return")), f"{run.summary['run_seconds']:,.0f}")
        table.add_section()
    return table


def draw(title: str, runs: Runs, *, by_time: bool = False, metric: str = "eval_return", label: str = "greedy return"):
    """One panel for each environment, against steps; with `by_time` one more below it, against seconds."""
    rows = 2 if by_time else 1
    figure = Figure(figsize=(max(4.2 * len(runs), 6.4), 3.6 * rows), dpi=DPI, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    panels = figure.subplots(rows, len(runs), squeeze=False)
    for (env, named), column in zip(runs.items(), panels.T, strict=True):
        for axes in column:
            style(axes)
        column[0].set_title(env, fontsize=11)
        draw_runs(column[0], list(named.values()), list(named), metric)
        column[0].set_xlabel("environment steps")
        if by_time:
            seconds = [run.summary["run_seconds"] / run.steps[-1] for run in named.values()]
            draw_runs(column[1], list(named.values()), list(named), metric, seconds)
            column[1].set_xlabel("seconds, all seeds side by side")
    for axes in panels[:, 0]:
        axes.set_ylabel(label)
    same = len({tuple(named) for named in runs.values()}) == 1
    for axes in panels[0, :1] if same else panels[0]:
        axes.legend(frameon=False, fontsize=10, loc="lower right")
    return figure


def draw_runs(
    axes: Axes, runs: Sequence[Results], names: Sequence[str], metric: str, seconds_each: Sequence[float] = ()
):
    """A metric of several runs where it is known: interquartile mean over seeds, in the 95 % bootstrap interval."""
    for i, (run, name, color) in enumerate(zip(runs, names, PALETTE, strict=False)):
        values = run.values(metric).reshape(run.num_seeds, -1)
        known = np.isfinite(values).all(axis=0)
        values, steps = values[:, known], run.steps[known]
        x = steps * seconds_each[i] if seconds_each else steps
        draw_band(axes, x, interquartile_mean(values, axis=0), *bootstrap_interval(values), name, color)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0.01)


def final_returns(runs: Runs) -> dict[str, dict[str, np.ndarray]]:
    """The greedy return at each run's end, `[S]`, by environment and name."""
    return {env: {name: run.final("eval_return") for name, run in named.items()} for env, named in runs.items()}
