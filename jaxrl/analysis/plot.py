"""Learning curves: the interquartile mean over seeds with its bootstrap band, of one run or of several together, and
the lines and bands that they are made of, for figures of one's own. And pictures of grid worlds, with what an agent
thinks of them.

Figures are made with matplotlib's objects, not with pyplot: no global state, no window, no display needed.
"""

from __future__ import annotations

import os
import pathlib
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator

from jaxrl.analysis.results import Results, format_value
from jaxrl.checks import JaxrlError
from jaxrl.files import write_atomically
from jaxrl.types import Discrete, Spec

# Ten colours that stay apart for colour-blind readers (Petroff, 2021, "Accessible Color Sequences for Data
# Visualization", arXiv:2107.02270), the dark ones first: a single run is drawn in the first.
PALETTE = (
    *("#3f90da", "#bd1f01", "#832db6", "#ffa90e", "#717581"),
    *("#a96b59", "#92dadd", "#e76300", "#b9ac70", "#94a4a2"),
)
GREY = "#717581"  # of what a line is measured by: an optimum, chance
EVALUATION_COLOR = "#bd1f01"  # of a single run; in a sweep, evaluation has its configuration's colour
EVALUATION_STYLE: dict[str, Any] = {"ls": (0, (4, 2)), "lw": 1.3, "marker": "o", "ms": 3.5}
DPI = 150
SIZE = (8.0, 4.5)  # inches: as wide as a README shows it
STEPS = "environment steps"  # what most curves are drawn against
LEGEND_LIMIT = 18  # entries that fit beside the axes
FORMATS = ("png", "pdf", "svg", "jpg")

ARROWS = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}  # columns and rows
CELL = 0.72  # inches: a grid world's cell

# Acronyms among the names of agents: the API writes them small, a title does not.
ACRONYMS = "a2c c51 cem cql ddpg diayn dqn drqn her iql ippo maddpg mappo ppo qmix qr r2d2 sac td td3 trpo vdn"

NAMES = {
    "double_q_learning": "Double Q-learning",
    "monte_carlo": "Monte Carlo",
    "n_step_sarsa": "n-step Sarsa",
    "n_step_td": "n-step TD",
    "q_learning": "Q-learning",
    "sarsa_lambda": "Sarsa(\N{GREEK SMALL LETTER LAMDA})",
}


class Series(NamedTuple):
    """One line of a figure: `steps`, `iqm`, `low` and `high` are `[time]`; NaN where there is nothing to draw."""

    steps: np.ndarray
    iqm: np.ndarray
    low: np.ndarray
    high: np.ndarray
    label: str


def plot_curve(results: Results, path: str | os.PathLike | None = None, metric: str | None = None) -> Figure:
    """Draws one run: training return as a line with its band and, where there was any, greedy evaluation, dashed.

    A sweep has one colour per configuration, labelled with the hyper-parameters that vary; past ten configurations
    only training is drawn.

    Args:
      results: a run or a sweep.
      path: where to write the figure (png, pdf, svg or jpg), or None.
      metric: the metric to draw alone, instead of training return and evaluation.

    Returns:
      The figure.

    Raises:
      JaxrlError: if there is no such metric, or the path's ending is not accepted.
    """
    figure, axes = _empty(ylabel=_ylabel(metric))
    training = _series(results, metric or "episode_return")
    # Two lines for each of more configurations than the palette has colours cannot be told apart.
    evaluated = metric is None and results.has("eval_return") and len(training) <= len(PALETTE)
    evaluation = _series(results, "eval_return") if evaluated else []
    many = len(training) > 1
    seeds = "one seed" if results.num_seeds == 1 else "IQM"
    what = "greedy evaluation" if metric == "eval_return" else "training" if metric is None else metric
    neutral = "#444444" if many else PALETTE[0]
    entries, style = _draw(axes, training, 0.22, neutral, f"{what}, {seeds}")
    for series, color in zip(evaluation, _colors(len(training)), strict=False):
        _draw_evaluation(axes, series, color, bars=len(evaluation) == 1)
    if evaluated:
        label = f"greedy evaluation, {seeds}"
        style.append(Line2D([], [], color=neutral if many else EVALUATION_COLOR, **EVALUATION_STYLE, label=label))
    _legend(figure, axes, entries if many else [], style)
    return _finish(figure, _title(results), path)


def plot_comparison(
    list_of_results: Sequence[Results],
    labels: Sequence[str] | None = None,
    path: str | os.PathLike | None = None,
    metric: str = "auto",
) -> Figure:
    """Draws several runs in one pair of axes, a line and a band for each (and for each configuration of a sweep).

    Where the runs are of different environments, the title says that their returns do not compare.

    Args:
      list_of_results: the runs.
      labels: a name for each; made from what differs between the runs unless given.
      path: where to write the figure (png, pdf, svg or jpg), or None.
      metric: the metric to draw; "auto" is greedy evaluation if every run has it, else training return.

    Returns:
      The figure.

    Raises:
      JaxrlError: if there are no runs, not one label for each, no such metric, or the path's ending is not accepted.
    """
    runs = list(list_of_results)
    if not runs:
        raise JaxrlError("plot_comparison: list_of_results is empty; it must hold one run at least")
    labels = _labels(runs) if labels is None else list(labels)
    if len(labels) != len(runs):
        raise JaxrlError(
            f"plot_comparison: labels has {len(labels)} entries; it must have one for each of {len(runs)} runs"
        )
    if metric == "auto":
        metric = "eval_return" if all(run.has("eval_return") for run in runs) else "episode_return"
    lines = [
        series._replace(label=", ".join(part for part in (label, series.label) if part))
        for run, label in zip(runs, labels, strict=True)
        for series in _series(run, metric)
    ]
    source = {"eval_return": "greedy evaluation", "episode_return": "training"}.get(metric, metric)
    figure, axes = _empty(ylabel=_ylabel(metric))
    entries, style = _draw(axes, lines, 0.18, "#444444", f"{source}, IQM over seeds")
    _legend(figure, axes, entries, style)
    return _finish(figure, _comparison_title(runs), path)


def new_figure(
    title: str,
    panels: Sequence[str] = ("",),
    *,
    rows: int = 1,
    xlabel: str = STEPS,
    ylabel: str = "",
    size: tuple[float, float] | None = None,
    **subplots: Any,
) -> tuple[Figure, list[Axes]]:
    """An empty figure in the style of all: a light grid, no frame at the top and right.

    Args:
      title: over the whole figure.
      panels: the titles of the axes side by side.
      rows: how many rows of such axes; the titles are over the first.
      xlabel: of the last row's axes. Environment steps are written short, such as 50k.
      ylabel: of the first column's axes.
      size: width and height in inches.
      **subplots: further arguments of `matplotlib.figure.Figure.subplots`, such as `sharey=True`.

    Returns:
      the figure, and its axes, row by row.
    """
    columns = len(panels)
    size = size or (SIZE[0] if columns == 1 else 4.2 * columns, SIZE[1])
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    grid = figure.subplots(rows, columns, squeeze=False, **subplots)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#888888")
        axes.grid(color="#e4e4e4", lw=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(color="#888888", labelsize=10)
        axes.margins(x=0.01)
        if xlabel == STEPS:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 100k, 1.5M
    for axes, name in zip(grid[0], panels, strict=True):
        axes.set_title(name, fontsize=11)
    for axes in grid[-1]:
        axes.set_xlabel(xlabel)
    for axes in grid[:, 0]:
        axes.set_ylabel(ylabel)
    return figure, list(grid.flat)


def draw_band(
    axes: Axes,
    x: np.ndarray,
    line: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    label: str = "",
    color: Any = PALETTE[0],
    alpha: float = 0.2,
) -> None:
    """A line through the finite points, whatever gaps are between them, and the band where there is an interval.

    Args:
      axes: where.
      x: `[points]`.
      line: `[points]`, such as a mean.
      low: `[points]`, the band's lower end; NaN where there is none.
      high: `[points]`, its upper end.
      label: the line's, for a legend.
      color: of both.
      alpha: how much of the background the band covers, from 0 to 1.
    """
    drawn, known = np.isfinite(line), np.isfinite(low)
    # A line through fewer than two points cannot be seen; a marker can.
    marker = "o" if drawn.sum() == 1 else None
    axes.plot(x[drawn], line[drawn], color=color, lw=1.8, marker=marker, label=label, zorder=3)
    if known.any():
        axes.fill_between(x[known], low[known], high[known], color=color, alpha=alpha, lw=0, zorder=2)


def draw_bands(
    axes: Axes,
    x: np.ndarray,
    bands: Mapping[str, Sequence[np.ndarray]],
    colors: Iterable[Any] = PALETTE,
    alpha: float = 0.2,
) -> None:
    """Several lines with their bands, each in a colour of its own.

    Args:
      axes: where.
      x: `[points]`, the same for all.
      bands: by label `(line, low, high)`, as of `draw_band`, such as `iqm_interval` and `mean_interval` return.
      colors: for each its colour; there may be more of them.
      alpha: as of `draw_band`.

    Example::

        draw_bands(axes, results.steps, curves(results, ["plain", "double"], "loss"))
    """
    for (label, (line, low, high)), color in zip(bands.items(), colors, strict=False):
        draw_band(axes, x, line, low, high, label, color, alpha)


def curves(results: Results, names: Sequence[str], metric: str = "episode_return") -> dict[str, tuple]:
    """The curves of a sweep's configurations, for `draw_bands`.

    Args:
      results: a sweep.
      names: of its configurations, in their order.
      metric: which metric.

    Returns:
      by name `(iqm, low, high)`, each `[time]`; see `Results.curve`.

    Raises:
      JaxrlError: if there is no such metric.
    """
    return dict(zip(names, zip(*results.curve(metric)[1:], strict=True), strict=True))


def plot_grid(spec: Spec, q_values: Any, path: str | os.PathLike | None = None, title: str | None = None) -> Figure:
    """Draws a grid world: the value of each cell as its colour, and arrows for its greedy actions.

    Cells that end an episode have no value and keep their character, and so does the start; where all actions are
    worth the same there is no arrow.

    Args:
      spec: of a grid world, `env.spec`; actions whose names are up, down, left and right have arrows.
      q_values: action values `[S, A]`, such as `state.agent.q`.
      path: where to write the figure (png, pdf, svg or jpg), or None.
      title: over it; the environment's id unless given.

    Returns:
      The figure.

    Raises:
      JaxrlError: if the environment has no layout, the values are of another shape, or the path's ending is not
        accepted.

    Example::

        plot_grid(env.spec, state.agent.q, "maze.png")
    """
    q_values = np.asarray(q_values, float)
    if not (spec.layout and isinstance(spec.action_space, Discrete)):
        raise JaxrlError(f"plot_grid: {spec.id} has no layout; the grid worlds have one (jaxrl/Maze-v0, ...)")
    cells = np.array([list(row) for row in spec.layout])
    if q_values.shape != (cells.size, spec.action_space.n):
        raise JaxrlError(
            f"plot_grid: q_values of shape {q_values.shape} are not accepted; {spec.id} has {cells.size} states and "
            f"{spec.action_space.n} actions"
        )
    best = q_values.max(-1)
    values = np.ma.masked_where(np.isin(cells, list("T#X")), best.reshape(cells.shape))
    height, width = cells.shape
    figure = Figure(figsize=(CELL * width + 1.6, CELL * height + 0.7), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="viridis")
    axes.set_facecolor("#e4e4e4")
    axes.set_xticks(np.arange(width + 1) - 0.5, labels=[])
    axes.set_yticks(np.arange(height + 1) - 0.5, labels=[])
    axes.grid(color="white", lw=1.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    middle = np.mean([values.min(), values.max()]) if values.count() else 0.0
    for state, (cell, value) in enumerate(zip(cells.ravel(), values.ravel(), strict=True)):
        row, column = divmod(state, width)
        dark = value is np.ma.masked or value > middle
        color = "black" if dark else "white"
        if cell == "X":
            axes.fill_between([column - 0.5, column + 0.5], row - 0.5, row + 0.5, color="#555555", lw=0)
        elif cell in "T#":
            axes.text(column, row, cell, ha="center", va="center", fontsize=13, weight="bold")
        elif cell == "S":
            axes.text(column - 0.42, row - 0.42, "S", ha="left", va="top", fontsize=8, color=color)
        if cell in "T#X":
            continue
        greedy = q_values[state] >= best[state] - 1e-6 * max(1.0, abs(best[state]))
        for name in np.array(spec.action_names)[greedy] if not greedy.all() else ():
            x, y = ARROWS.get(name, (0, 0))
            back = 0.3 if greedy.sum() == 1 else 0.0
            tip, tail = (column + 0.34 * x, row + 0.34 * y), (column - back * x, row - back * y)
            axes.annotate("", tip, tail, arrowprops={"arrowstyle": "->", "color": color, "lw": 1.4})
    figure.colorbar(image, ax=axes, shrink=0.8, label="value")
    return _finish(figure, title or spec.id, path)


def _series(results: Results, metric: str) -> list[Series]:
    """One `Series` per configuration; a run that is no sweep has one, without a label."""
    steps, *statistics = results.curve(metric)
    rows = [np.atleast_2d(statistic) for statistic in statistics]  # [time] -> [1, time]
    return [
        Series(steps, line, low, high, results.label(index) if results.is_sweep else "")
        for index, (line, low, high) in enumerate(zip(*rows, strict=True))
    ]


def _draw(axes: Axes, lines: list[Series], alpha: float, neutral: str, what: str) -> tuple[list, list]:
    """Lines with their bands. Returns a legend's entries, one for each, and those that say what the styles mean."""
    colors = _colors(len(lines))
    for series, color in zip(lines, colors, strict=True):
        draw_band(axes, *series, color, alpha=alpha if len(lines) <= 4 else 0.08)
    entries = [Line2D([], [], color=color, lw=2, label=s.label) for s, color in zip(lines, colors, strict=True)]
    style: list[Any] = [Line2D([], [], color=neutral, lw=2, label=what)]
    if any(np.isfinite(series.low).any() for series in lines):
        style.append(Patch(color=neutral, alpha=0.22, lw=0, label="95 % bootstrap interval"))
    return entries, style


def _draw_evaluation(axes: Axes, series: Series, color: Any, bars: bool) -> None:
    """Greedy evaluation: dashed, a marker at each evaluation, and for a single run its interval as a bar."""
    drawn = np.isfinite(series.iqm)
    steps, iqm = series.steps[drawn], series.iqm[drawn]
    color = EVALUATION_COLOR if bars else color
    axes.plot(steps, iqm, color=color, **EVALUATION_STYLE, label=f"evaluation {series.label}".strip(), zorder=4)
    if bars and np.isfinite(series.low).any():
        axes.vlines(steps, series.low[drawn], series.high[drawn], color=color, lw=1.0, alpha=0.5, zorder=4)


def _empty(ylabel: str) -> tuple[Figure, Axes]:
    """A figure with empty axes, labelled, in the style of all."""
    figure, (axes,) = new_figure("", ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(lambda y, position: f"{y:,.10g}".replace("-", "\N{MINUS SIGN}"))
    axes.set_xlabel(STEPS, fontsize=11)
    axes.set_ylabel(ylabel, fontsize=11)
    return figure, axes


def _finish(figure: Figure, title: str, path: str | os.PathLike | None) -> Figure:
    """Sets the title and the margins, and writes the figure if there is a path."""
    axes = figure.axes[0]
    axes.set_title(textwrap.fill(title, 58), loc="left", fontsize=12)
    if path is not None:
        path = pathlib.Path(path)
        ending = path.suffix.lower().removeprefix(".")
        if ending not in FORMATS:
            raise JaxrlError(f"plot: path={str(path)!r} is not accepted; it must end in .{', .'.join(FORMATS)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: figure.savefig(file, format=ending, dpi=DPI))
    return figure


def _legend(figure: Figure, axes: Axes, entries: list, style: list) -> None:
    """A legend in the axes, or outside of them at the right where it is long: entries, then what the styles mean."""
    if len(entries) <= 4:
        axes.legend(handles=[*entries, *style], frameon=False, fontsize=9.5, loc="best")
        return
    if len(entries) > LEGEND_LIMIT:  # evenly spaced ones, for the colours are ordered then
        shown = np.linspace(0, len(entries) - 1, LEGEND_LIMIT).round().astype(int)
        note = Line2D([], [], ls="", label=f"({LEGEND_LIMIT} of {len(entries)} are named)")
        entries = [*(entries[index] for index in shown), note]
    figure.set_size_inches(SIZE[0] + 1.5, SIZE[1])
    figure.legend(handles=[*entries, *style], frameon=False, fontsize=8.5, loc="outside right upper")


def _colors(n: int) -> list[Any]:
    """`n` colours: the palette's, or past its end a colour map that stays ordered and readable for everyone."""
    return list(PALETTE[:n]) if n <= len(PALETTE) else list(colormaps["viridis"](np.linspace(0.0, 0.92, n)))


def _ylabel(metric: str | None) -> str:
    returns = metric in (None, "episode_return", "eval_return")
    return "return per episode (reward)" if returns else metric.replace("_", " ")


def _name(agent: str) -> str:
    """An agent's name as a title has it: `ppo` becomes PPO, `rainbow` Rainbow."""
    if agent in NAMES:
        return NAMES[agent]
    words = agent.replace("-", "_").split("_")
    return " ".join(word.upper() if word.lower() in ACRONYMS.split() else word.capitalize() for word in words)


def _agent(results: Results) -> str:
    return _name(str(results.config.get("agent", "agent")))


def _env(results: Results) -> str:
    return str(results.config.get("env", "environment"))


def _seeds(results: Results) -> str:
    diverged = int(np.isfinite(results.first_bad_step()).sum())
    number = f"{results.num_seeds:,} seed{'' if results.num_seeds == 1 else 's'}"
    return number + (f" ({diverged} diverged)" if diverged else "")


def _title(results: Results) -> str:
    what = f"{_agent(results)} on {_env(results)}"
    if not results.is_sweep:
        return f"{what}, {_seeds(results)}"
    return f"{what}, {results.shape[0]} configuration{'' if results.shape[0] == 1 else 's'} of {_seeds(results)}"


def _comparison_title(runs: list[Results]) -> str:
    agents, envs, seeds = (list(dict.fromkeys(map(part, runs))) for part in (_agent, _env, _seeds))
    if len(envs) > 1:
        return f"{', '.join(envs)}: different environments, returns do not compare"
    subject = ", ".join(agents) if len(agents) <= 4 else f"{len(agents)} agents"
    return f"{subject} on {envs[0]}" + (f", {seeds[0]}" if len(seeds) == 1 else "")


def _labels(runs: list[Results]) -> list[str]:
    """Names for runs, of what differs between them: agent, environment, their parameters, seeds; else numbers."""
    facts = [
        {"agent": _agent(run), "env": _env(run)}
        | dict(run.config.get("hyper_parameters") or {})
        | {f"env.{name}": value for name, value in (run.config.get("env_params") or {}).items()}
        | {"seeds": _seeds(run)}
        for run in runs
    ]
    names = dict.fromkeys(name for fact in facts for name in fact)
    differing = [name for name in names if len({str(fact.get(name)) for fact in facts}) > 1]
    shown = ("agent", "env", "seeds")
    labels = [
        ", ".join(
            str(fact[name]) if name in shown else f"{name}={format_value(fact[name])}"
            for name in differing
            if name in fact
        )
        for fact in facts
    ]
    return (
        labels
        if len(set(labels)) == len(runs)
        else [f"run {i + 1}, {label}".rstrip(", ") for i, label in enumerate(labels)]
    )
