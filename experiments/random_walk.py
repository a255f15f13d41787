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

import pathlib

import jax.numpy as jnp
import numpy as np
from common import FIGURES, on_all_cores, show
from matplotlib import colormaps

import jaxrl
from jaxrl import planning
from jaxrl.analysis.compare import table
from jaxrl.analysis.plot import draw_bands, new_figure
from jaxrl.analysis.statistics import mean_interval
from jaxrl.checks import JaxrlError
from jaxrl.transforms import report_episode_mean

STEP_SIZES = (
    *(0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4),
    *(0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
ENV = "jaxrl/RandomWalk-v0"
TOP = 0.56  # of the axes: the error without learning is 0.55


def main(
    seeds: int = 100, episodes: int = 10, steps: int = 2_000,
    n: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    lambdas: tuple[float, ...] = (0.0, 0.4, 0.8, 0.9, 0.95, 0.975, 0.99, 1.0),
    step_sizes: tuple[float, ...] = STEP_SIZES, out: pathlib.Path = FIGURES / "random_walk.png",
) -> dict[str, dict[float, np.ndarray]]:  # fmt: skip
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
    true_values = np.asarray(planning.policy_evaluation(model, np.full(model.reward.shape, 0.5), gamma=1.0))

    def watched(agent):
        def rms_error(state, _):
            return jnp.sqrt(jnp.mean((state.weights - true_values) ** 2, where=~model.terminal))

        return report_episode_mean(agent, episodes, rms_error=rms_error)

    def n_step(*, n: int, learning_rate: float):
        return watched(jaxrl.n_step_td(n=n, learning_rate=learning_rate, gamma=1.0))

    def traces(*, online: bool, lambda_: float, learning_rate: float):
        return watched(jaxrl.td(online=online, lambda_=lambda_, learning_rate=learning_rate, gamma=1.0))

    def errors(constructor, **axes: list) -> np.ndarray:
        """`[axis, ..., S]`, at the end of training."""
        results = jaxrl.sweep(
            constructor, ENV, num_steps=steps, seeds=seeds, progress=True, eval_every=steps, eval_episodes=1,
            log_every=steps - 1,  # so that the last interval, whose metrics are means, is the last step
            **axes,
        )  # fmt: skip
        least = int(results.metrics["episode_count"].sum(axis=-1).min())
        if least < episodes:
            raise JaxrlError(f"random_walk: steps={steps} is not accepted; a seed ended {least} of {episodes} episodes")
        return results.metrics["rms_error"][..., -1].reshape(*map(len, axes.values()), seeds)

    by_n = errors(n_step, n=list(n), learning_rate=list(step_sizes))
    online, offline = errors(traces, online=[True, False], lambda_=list(lambdas), learning_rate=list(step_sizes))
    numbers = {
        "n-step TD": dict(zip(n, by_n, strict=True)),
        "TD(λ), online": dict(zip(lambdas, online, strict=True)),
        "TD(λ), offline": dict(zip(lambdas, offline, strict=True)),
    }
    rows = []
    figure, panels = new_figure(
        f"Random walk of 19 states, first {episodes} episodes, {seeds:,} seeds: mean and 95 % interval", list(numbers),
        xlabel="step size", ylabel="RMS error of the values", size=(12.0, 5.2), sharey=True,
    )  # fmt: skip
    for axes, (method, found) in zip(panels, numbers.items(), strict=True):
        bands = {}
        for parameter, error in found.items():
            mean, low, high = mean_interval(error, axis=-1)
            best = np.argmin(np.nan_to_num(mean, nan=np.inf))
            least = f"{mean[best]:.3f} ({low[best]:.3f} to {high[best]:.3f})"
            rows.append((method, f"{parameter:g}", f"{step_sizes[best]:g}", least))
            line = np.where(mean < 10, mean, np.nan)  # a point above the axes, but no farther than can be drawn
            bounds = (np.where(mean < TOP, bound, np.nan) for bound in (low, high))
            bands[f"{'n' if method == 'n-step TD' else 'λ'} = {parameter:g}"] = line, *bounds
        draw_bands(axes, np.array(step_sizes), bands, colormaps["viridis"](np.linspace(0.0, 0.92, len(bands))))
        axes.set(ylim=(0.24, TOP), xlim=(0, max(step_sizes)))
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 3}
        axes.legend(frameon=False, fontsize=8.5, handlelength=1.4, **below)
    title = "random walk: each curve's least error, and the step size it is reached at"
    show(table(title, ("method", "n or λ", "step size", "RMS error (95 % interval)"), rows), figure, out)
    return numbers


if __name__ == "__main__":
    on_all_cores(main)
