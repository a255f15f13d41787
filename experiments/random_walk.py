"""The random walk: between one-step and Monte Carlo methods lie the best, by n or by lambda.

Sutton and Barto 2018, figures 7.2 (n-step TD) and 12.6 (TD(lambda)): the root-mean-square error of the values of 19
states, averaged over the states, the ends of the first 10 episodes and 100 seeds, against the step size. All points of
the figure have the same walks, and each of the two algorithms is one call of `jaxrl.sweep`.

The third panel is TD(lambda) whose changes are made together when an episode ends, as in Sutton 1988. The offline
lambda-return algorithm of the book's figure 12.3 has the same targets, but moves to them one after the other, each step
from the weights that the last one left (equation 12.4); added up instead, the changes of a state that an episode visits
often overshoot, so large step sizes diverge here and do not there.

    python experiments/random_walk.py    # minutes: a step of n-step TD takes time in proportion to n
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import rich
import tyro
from episodes import FIGURES, averaged, draw_band, mean_interval, new_figure, save, use_all_cores
from matplotlib import colormaps
from rich.table import Table

import jaxrl
from jaxrl import planning
from jaxrl.checks import JaxrlError
from jaxrl.types import Agent, Array, PyTree

STEP_SIZES = (
    *(0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4),
    *(0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
ENV = "jaxrl/RandomWalk-v0"
TOP = 0.56  # of the axes: the error without learning is 0.55


def main(
    seeds: int = 100,
    episodes: int = 10,
    steps: int = 2_000,
    n: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    lambdas: tuple[float, ...] = (0.0, 0.4, 0.8, 0.9, 0.95, 0.975, 0.99, 1.0),
    step_sizes: tuple[float, ...] = STEP_SIZES,
    out: pathlib.Path = FIGURES / "random_walk.png",
) -> dict[str, dict[float, np.ndarray]]:
    """The error of n-step TD and TD(lambda) on the random walk, by step size, over many seeds.

    Args:
      seeds: how many runs at each point.
      episodes: how many of the first episodes are averaged over.
      steps: environment steps of each run, enough for these episodes (an error says so where they are not).
      n: steps before the bootstrap of n-step TD; a step costs time in proportion to it.
      lambdas: how slowly the traces of TD(lambda) fade.
      step_sizes: the points of each curve.
      out: where to write the figure.

    Returns:
      by method and n or lambda: the error of each seed, `[step sizes, S]`.
    """
    model = jaxrl.make(ENV).model
    walking = ~model.terminal
    true_values = np.asarray(planning.policy_evaluation(model, np.full(model.reward.shape, 0.5), gamma=1.0))

    def rms_error(state: PyTree) -> Array:
        return jnp.sqrt(jnp.mean((state.weights - true_values) ** 2, where=walking))

    def n_step(*, n: int, learning_rate: float) -> Agent:
        agent = jaxrl.n_step_td(n=n, learning_rate=learning_rate, gamma=1.0)
        return averaged(agent, "rms_error", rms_error, episodes)

    def traces(*, online: bool, lambda_: float, learning_rate: float) -> Agent:
        agent = jaxrl.td(online=online, lambda_=lambda_, learning_rate=learning_rate, gamma=1.0)
        return averaged(agent, "rms_error", rms_error, episodes)

    def errors(constructor: Callable[..., Agent], **axes: list) -> np.ndarray:
        """`[axis, ..., S]`, at the end of training."""
        # The last log interval is one step long, so that its metrics, which are means, are the last step's.
        periods = {"log_every": steps - 1, "eval_every": steps, "eval_episodes": 1}
        results = jaxrl.sweep(constructor, ENV, num_steps=steps, seeds=seeds, progress=True, **periods, **axes)
        least = int(results.metrics["episode_count"].sum(axis=-1).min())
        if least < episodes:
            raise JaxrlError(f"random_walk: steps={steps} is not accepted; a seed ended {least} of {episodes} episodes")
        return results.metrics["rms_error"][..., -1].reshape(*(len(values) for values in axes.values()), seeds)

    rates = list(step_sizes)
    by_n = errors(n_step, n=list(n), learning_rate=rates)
    online, offline = errors(traces, online=[True, False], lambda_=list(lambdas), learning_rate=rates)
    numbers = {
        "n-step TD": dict(zip(n, by_n, strict=True)),
        "TD(λ), online": dict(zip(lambdas, online, strict=True)),
        "TD(λ), offline": dict(zip(lambdas, offline, strict=True)),
    }
    rich.print(tabulate(numbers, step_sizes))
    save(draw(numbers, step_sizes, episodes), out)
    return numbers


def tabulate(numbers: dict, step_sizes: tuple[float, ...]) -> Table:
    table = Table(title="random walk: each curve's least error, and the step size it is reached at")
    for name in ("method", "n or λ", "step size", "RMS error (95 % interval)"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for method, curves in numbers.items():
        for parameter, errors in curves.items():
            mean, low, high = mean_interval(errors, axis=-1)
            best = np.argmin(np.nan_to_num(mean, nan=np.inf))
            error = f"{mean[best]:.3f} ({low[best]:.3f} to {high[best]:.3f})"
            table.add_row(method, f"{parameter:g}", f"{step_sizes[best]:g}", error)
    return table


def draw(numbers: dict, step_sizes: tuple[float, ...], episodes: int):
    seeds = next(iter(numbers["n-step TD"].values())).shape[-1]
    title = f"Random walk of 19 states, first {episodes} episodes, {seeds:,} seeds: mean and 95 % interval"
    figure, panels = new_figure(title, columns=len(numbers))
    for axes, (method, curves) in zip(panels, numbers.items(), strict=True):
        colors = colormaps["viridis"](np.linspace(0.0, 0.92, len(curves)))
        for (parameter, errors), color in zip(curves.items(), colors, strict=True):
            label = f"{'n' if method == 'n-step TD' else 'λ'} = {parameter:g}"
            mean, low, high = mean_interval(errors, axis=-1)
            line = np.where(mean < 10, mean, np.nan)  # a point above the axes, but no farther than can be drawn
            bounds = (np.where(mean < TOP, bound, np.nan) for bound in (low, high))
            draw_band(axes, np.array(step_sizes), line, *bounds, label, color)
        axes.set_title(method, fontsize=11)
        axes.set(xlabel="step size", ylim=(0.24, TOP), xlim=(0, max(step_sizes)))
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 3}
        axes.legend(frameon=False, fontsize=8.5, handlelength=1.4, **below)
    panels[0].set_ylabel("RMS error of the values")
    figure.set_size_inches(12.0, 5.2)
    return figure


if __name__ == "__main__":
    use_all_cores()
    tyro.cli(main)
