"""Agents beside each other: tables of final returns with their intervals, and figures with a panel per environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from jaxrl.analysis.plot import PALETTE, STEPS, draw_band, new_figure
from jaxrl.analysis.results import Results, format_iqm


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]], text: Sequence[str] | None = None) -> Table:
    """A table for the terminal.

    Args:
      title: over it.
      header: the columns' names.
      rows: a row's cells, one for each column or fewer. An array holds a number of each seed, `[seed]`, and is shown by
        its interquartile mean and interval; anything else as text. An empty row ends a section.
      text: the columns that are flush left; the first, unless given. All others are flush right, as numbers are.

    Returns:
      a table for `rich.print`.
    """
    made = Table(title=title)
    for name in header:
        made.add_column(name, justify="left" if name in (header[:1] if text is None else text) else "right")
    for row in rows:
        if row:
            made.add_row(*(format_iqm(cell) if isinstance(cell, np.ndarray) else str(cell) for cell in row))
        else:
            made.add_section()
    return made


def comparison_table(title: str, runs: Mapping[str, Mapping[str, Results]]) -> Table:
    """The greedy return of each agent at the end of its run, and the seconds that all its seeds side by side took.

    Args:
      title: over it.
      runs: evaluated runs, no sweeps, by environment and agent; those of one environment are equally long.

    Returns:
      a table for `rich.print`.

    Raises:
      JaxrlError: if a run was not evaluated.
    """
    rows = []
    for env, named in runs.items():
        for name, run in named.items():
            what = "" if rows and rows[-1] else f"{env}, {run.steps[-1]:,} steps"
            rows.append((what, name, run.final("eval_return"), f"{run.summary['run_seconds']:,.0f}"))
        rows.append(())
    return table(title, ("environment", "agent", "greedy return", "seconds"), rows, ("environment", "agent"))


def plot_environments(
    title: str,
    runs: Mapping[str, Mapping[str, Results]],
    *,
    by_time: bool = False,
    metric: str = "eval_return",
    ylabel: str = "greedy return",
) -> Figure:
    """Learning curves of several agents: a panel for each environment, against environment steps.

    Args:
      title: over the figure.
      runs: runs, no sweeps, by environment and agent.
      by_time: whether there is one more row of panels, against the seconds that all seeds side by side took.
      metric: the metric to draw.
      ylabel: what it is.

    Returns:
      the figure; its `axes` are the panels, row by row.

    Raises:
      JaxrlError: if there is no such metric.
    """
    rows = 2 if by_time else 1
    size = (max(4.2 * len(runs), 6.4), 3.6 * rows)
    figure, panels = new_figure(title, list(runs), rows=rows, ylabel=ylabel, size=size)
    for axes, below, named in zip(panels, panels[-len(runs) :], runs.values(), strict=False):
        for (name, run), color in zip(named.items(), PALETTE, strict=False):
            steps, line, low, high = run.curve(metric)
            draw_band(axes, steps, line, low, high, name, color)
            if by_time:
                draw_band(below, steps * run.summary["run_seconds"] / steps[-1], line, low, high, name, color)
        axes.set_xlabel(STEPS)
        below.set_xlabel("seconds, all seeds side by side" if by_time else STEPS)
    same = len({tuple(named) for named in runs.values()}) == 1
    for axes in panels[: 1 if same else len(runs)]:
        axes.legend(frameon=False, fontsize=10, loc="lower right")
    return figure
